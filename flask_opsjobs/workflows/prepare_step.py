"""Prepares the row of one step: checks its call, its options and the results that it takes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ..core import copy_text
from ..errors import DeclarationError, InvalidArgs
from ..host import Host
from ..jobs.record import json_storage
from ..jobs.record.enqueue import keys, parameters
from ..jobs.record.job_limit import columns_of, job_limit_of
from ..jobs.record.options import Options, seconds_of
from ..jobs.record.stored_call import store_call
from ..jobs.record.task import ChainLink, Task
from .declaration import MAP_TASK, WAIT_QUEUE, WAIT_TASK, Map, Node, Step, Wait, references_of
from .faults import Faults, show_name
from .lifecycle import ON_FAILURE
from .references import Reference, find_reference

MOST_SIGNALS = 100
DURATION = "must be seconds or a timedelta, above 0 and at most 100 years"


class JobHead:
    """What all jobs of a task with the same options share. `columns` and `place` are in COPY's format."""

    def __init__(self, task: str, options: Options) -> None:
        columns = options.enqueue_parameters
        row = (
            task,
            columns["queue"],
            columns["priority"],
            columns["meta"],
            copy_text.array(columns["tags"]),
            columns["max_attempts"],
            columns["timeout_seconds"],
        )
        self.task = task
        self.queue = options.queue
        self.unique = options.unique
        self.delay_seconds = options.delay_seconds
        self.deadline = options.deadline
        self.columns = "".join(copy_text.column(one) + "\t" for one in row).encode()
        self.place = _as_copied(columns)


@dataclass(slots=True)
class PreparedStep:
    """The row of a step and its job, except their id. `args` is JSON.

    `takes` are the results that its arguments take, `keys` those of its unique lock, and `pending` is the
    number of steps that it waits for. `place` are columns in COPY's format.
    """

    node: Node
    head: JobHead
    args: bytes
    lane: str
    place: bytes
    takes: Mapping[str, Reference] = field(default_factory=dict)
    keys: Sequence[bytes] = ()
    pending: int = 0


@dataclass(frozen=True, slots=True)
class _CheckedCall:
    """The arguments of a call: the results that it takes, its other values, and these as JSON."""

    takes: dict[str, Reference]
    values: dict[str, Any]
    raw: bytes


class StepPreparation:
    """Prepares the steps of one workflow, and adds what is wrong to its faults."""

    def __init__(self, host: Host, faults: Faults) -> None:
        self._host = host
        self._faults = faults
        self._heads: dict[tuple[str, int], JobHead] = {}

    def prepare(self, node: Node) -> PreparedStep | None:
        """The row of a step; None, or a row that nobody may write, when something is wrong with it."""
        if node.on_failure not in ON_FAILURE:
            self._faults.add(node, "on_failure", 'on_failure must be "cancel" or "continue"')
        if not isinstance(node.may_fail, bool):
            self._faults.add(node, "may_fail", "may_fail must be True or False")
        for reference in references_of(node):
            self._check_reference(node, reference)
        if isinstance(node, Wait):
            return self._prepare_wait(node)
        assert isinstance(node, Step)
        if not isinstance(node.link, ChainLink):
            kind = type(node.link).__name__
            sentence = (
                f"it calls a {kind}, which is no task: declare its function with @opsjobs.task"
            )
            self._faults.add(node, "not_a_task", sentence)
            return None
        if isinstance(node, Map):
            return self._prepare_map(node, node.link)
        return self._prepare_call(node, node.link)

    # --- results of other steps

    def _check_reference(self, node: Node, reference: Reference) -> None:
        if not all(map(_can_be_in_path, reference.path)):
            sentence = "a part of a result is named by texts and whole numbers: result['rows'][0]"
            self._faults.add(node, "path", sentence)
        if reference.is_list and reference.path:
            self._faults.add(node, "path", "the results of a map are taken whole: write .results")
        source = reference.node
        if isinstance(source, Step) and isinstance(source.link, ChainLink):
            task = source.link.task
            if not task.record_output:
                sentence = (
                    f"it takes the result of {show_name(source.name)}, but task {task.name} keeps none: "
                    "declare it with record_output=True"
                )
                self._faults.add(node, "no_output", sentence)

    # --- the kinds of steps

    def _prepare_wait(self, node: Wait) -> PreparedStep:
        names = node.signals
        if not isinstance(names, list) or not 1 <= len(names) <= MOST_SIGNALS:
            sentence = f"give signal=, a name, or signals=, a list of 1 to {MOST_SIGNALS} names"
            self._faults.add(node, "signals", sentence)
        else:
            for name in names:
                self._faults.check_name(node, "the name of its signal", name)
        if not isinstance(node.key, str) or node.key:
            self._faults.check_name(node, "its key", node.key)
        if node.timeout is not None and not seconds_of(node.timeout):
            self._faults.add(node, "timeout", f"timeout {DURATION}")
        return PreparedStep(node, _WAITS, b"{}", _WAITS.queue, _WAITS.place)

    def _prepare_call(self, node: Step, link: ChainLink) -> PreparedStep | None:
        head = self._head_of(node, link)
        call = self._check_call(node, link)
        if call is None:
            return None
        if callable(link.chosen.tags):
            head = self._add_tags(node, link, call, head)
        lane, place = head.queue, head.place
        if link.chosen.limit is not None and (found := self._find_place(node, link, call)):
            lane, place = found["lane"], _as_copied(found)
        taken = self._find_keys(node, link, call) if head.unique is not None else ()
        return PreparedStep(node, head, call.raw, lane, place, call.takes, taken)

    def _prepare_map(self, node: Map, link: ChainLink) -> PreparedStep | None:
        task, options = link.task, link.chosen
        self._head_of(node, link)
        if not isinstance(node.over, Reference):
            sentence = (
                "over must be the result of another step, such as fetch.result: of a list that exists "
                "already, add a step per element"
            )
            self._faults.add(node, "over", sentence)
        if options.unique is not None:
            sentence = (
                f"task {task.name} is unique, but unique locks are taken when the run starts, and the "
                "elements are not known then: give the task .options(unique=None)"
            )
            self._faults.add(node, "unique", sentence)
        if not isinstance(node.as_, str):
            self._faults.add(node, "as_", "as_ is the name of the parameter that gets an element")
            return None
        call = self._check_call(node, link, element=node.as_)
        if call is None or not isinstance(node.over, Reference):
            return None
        # Its delay is the map's own: the elements are added when it has passed.
        own = Options(queue=options.queue, priority=options.priority, delay=options.delay)
        head = JobHead(MAP_TASK, own)
        stored = {"task": task.name, "as_": node.as_, "options": store_call(task, options)}
        args = json.dumps(stored).encode()[:-1] + b', "args": ' + call.raw + b"}"
        takes = {f"args.{name}": reference for name, reference in call.takes.items()}
        return PreparedStep(node, head, args, head.queue, head.place, {"over": node.over, **takes})

    # --- the arguments of a call

    def _check_call(
        self, node: Step, link: ChainLink, element: str | None = None
    ) -> _CheckedCall | None:
        """The checked arguments of a call; None when something is wrong with them.

        `element` is the parameter of a map that gets an element.
        """
        arguments = link.task.arguments
        named, found = arguments.by_name(link.args, link.kwargs)
        takes = {name: one for name, one in named.items() if isinstance(one, Reference)}
        given = named
        values: dict[str, Any] = {}
        raw = b"{}"
        try:
            if takes or element is not None:
                later = frozenset(takes if element is None else (*takes, element))
                given = {name: one for name, one in named.items() if name not in later}
                found += _faults_of_later(link.task, later, named, element)
                arguments = arguments.without(later)
            values = arguments.validate((), given)
            raw = arguments.dump(values, self._host.settings.max_args_bytes)
        except InvalidArgs as error:
            found += error.errors
        except DeclarationError as error:
            found.append({"loc": "", "msg": str(error), "type": "declaration"})
        if not found:
            return _CheckedCall(takes, values, raw)
        for one in _explain_references(found, given):
            self._faults.add(node, one["type"], one["msg"], one["loc"])
        return None

    def _find_place(self, node: Step, link: ChainLink, call: _CheckedCall) -> dict[str, Any] | None:
        """The columns that hold the place of a limited step; None when it needs a result."""
        limit = link.chosen.limit
        assert limit is not None
        for what, chosen in (("partition", limit.partition), ("weight", limit.weight)):
            if needed := _needed_result(chosen, call.takes):
                sentence = (
                    f"the {what} of limit {limit.name} needs the result that {needed} takes, but it must be "
                    "known when the run starts: let it name another argument"
                )
                self._faults.add(node, "limit", sentence)
                return None
        try:
            place = job_limit_of(link.task, limit, self._host, call.values)
        except InvalidArgs as error:
            self._add_all(node, error)
            return None
        return columns_of(link.chosen.queue, place)

    def _find_keys(self, node: Step, link: ChainLink, call: _CheckedCall) -> Sequence[bytes]:
        """The keys of the unique lock of a step; none when it needs a result."""
        unique = link.chosen.unique
        assert unique is not None
        by = call.takes if unique.by is None else unique.by
        if needed := next((name for name in by if name in call.takes), None):
            sentence = (
                f"its unique lock needs the result that {needed} takes, but it is taken when the run starts: "
                "let it name other arguments with by=[…], or give start(unique=…) instead"
            )
            self._faults.add(node, "unique", sentence)
            return ()
        known = link.task.arguments.without(frozenset(call.takes))
        try:
            return keys(link.task, unique, self._host, call.values, known)
        except InvalidArgs as error:
            self._add_all(node, error)
            return ()

    def _add_all(self, node: Node, error: InvalidArgs) -> None:
        for one in error.errors:
            self._faults.add(node, one["type"], one["msg"], one["loc"])

    # --- the options of a call

    def _head_of(self, node: Node, link: ChainLink) -> JobHead:
        """What the calls with these options share. An error of the options is added once."""
        key = (link.task.name, id(link.chosen))
        if key not in self._heads:
            self._check_options(node, link.task, link.chosen)
            self._heads[key] = JobHead(link.task.name, link.chosen)
        return self._heads[key]

    def _add_tags(self, node: Step, link: ChainLink, call: _CheckedCall, head: JobHead) -> JobHead:
        """The head with the tags of the call; without tags when it takes a result, which is not known yet."""
        if call.takes:
            return head
        try:
            tags = link.task.tags_of(link.chosen, call.values)
        except InvalidArgs as error:
            self._add_all(node, error)
            return head
        return JobHead(link.task.name, replace(link.chosen, tags=tags))

    def _check_options(self, node: Node, task: Task, options: Options) -> None:
        if task.name not in self._host.tasks:
            self._faults.add(
                node, "unknown_task", f"task {task.name} is not declared on this OpsJobs"
            )
        if options.scheduled_at is not None:
            sentence = "a step has no scheduled_at: give it a delay, which counts from its release"
            self._faults.add(node, "options", sentence)
        if options.session is not None:
            self._faults.add(node, "options", "a step has no session: give it to start(session=…)")
        try:
            parameters(task, options, self._host)
        except InvalidArgs as error:
            self._add_all(node, error)


def _can_be_in_path(key: object) -> bool:
    if isinstance(key, str):
        return json_storage.complain(key) is None
    return isinstance(key, int) and not isinstance(key, bool) and abs(key) < 2**31


def _faults_of_later(
    task: Task, later: frozenset[str], named: Mapping[str, Any], element: str | None
) -> list[dict[str, Any]]:
    """What is wrong with the parameters whose values come later. `element` is that of a map, or None."""
    found = []
    for name in sorted(later):
        if name in task.redact:
            message = (
                "is redacted: its value is never stored, so it cannot be a result: let the task fetch it by "
                "an argument that is not redacted"
            )
            found.append({"loc": name, "msg": message, "type": "redacted"})
        elif name not in task.arguments.names:
            message = "the task takes no such argument"
            found.append({"loc": name, "msg": message, "type": "extra_forbidden"})
        elif name == element and name in named:
            message = "gets each element of the list: do not give it a value too"
            found.append({"loc": name, "msg": message, "type": "given_twice"})
    return found


def _explain_references(
    errors: list[dict[str, Any]], given: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """The errors, in other words for arguments that hold a result inside of a list or dict."""
    holders = {name for name, value in given.items() if find_reference(value) is not None}
    message = "holds the result of a step inside: give each result as an argument of its own"
    explained = {name: {"loc": name, "msg": message, "type": "reference"} for name in holders}
    named = ((error["loc"].partition("[")[0].partition(".")[0], error) for error in errors)
    return [*explained.values(), *(error for name, error in named if name not in holders)]


def _needed_result(chosen: object, takes: Mapping[str, Reference]) -> str | None:
    """The argument with a result that a choice of arguments needs, or may need; None when it needs none.

    `chosen` is the name of an argument, or a function of all of them, or None: all of them.
    """
    if isinstance(chosen, str):
        return chosen if chosen in takes else None
    return next(iter(takes), None) if callable(chosen) else None


def _as_copied(columns: Mapping[str, Any]) -> bytes:
    names = ("lane", "limiter", "partition", "weight")
    return "".join(copy_text.column(columns[name]) + "\t" for name in names).encode()


_WAITS = JobHead(WAIT_TASK, Options(queue=WAIT_QUEUE, max_attempts=1))
