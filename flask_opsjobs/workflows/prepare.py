"""Checks a workflow that a host built, and prepares its rows. Finds every error before a row is written."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

from ..core import copy_text
from ..errors import DeclarationError, InvalidArgs, InvalidWorkflow
from ..host import Host
from ..jobs.record import json_storage
from ..jobs.record.enqueue import keys, parameters
from ..jobs.record.options import Options, seconds_of
from ..jobs.record.placing import columns_of, place_of
from ..jobs.record.task import Call, ChainLink, Task
from ..limits.limit import LimitPlace
from .declaration import (
    MAP_TASK,
    WAIT_QUEUE,
    WAIT_TASK,
    Map,
    Node,
    Step,
    Wait,
    WorkflowDeclaration,
    references_of,
)
from .lifecycle import ON_FAILURE
from .order import find_cycle, topological_order
from .references import Reference, find_reference

MOST_STEPS = 10_000
MOST_EDGES = 100_000
LONGEST_NAME = 200
_MOST_SIGNALS = 100
_DURATION = "must be seconds or a timedelta, above 0 and at most 100 years"
# Each hint compares with many names.
_MOST_HINTS, _COMPARED = 10, 1_000
# How many names of a cycle an error shows.
_SHOWN_OF_CYCLE = 10
# What a run tells the task of its `on_end`.
FACTS = ("workflow_id", "name", "state", "end_no", "context")

Fault = dict[str, str]


@dataclass(slots=True)
class PreparedStep:
    """The row of a step, except its id. `takes` are the results that its arguments take.

    `head` and `place` are columns of its job, in COPY's format.
    """

    node: Node
    task: str
    queue: str
    lane: str
    head: bytes
    place: bytes
    args: bytes
    options: Options
    takes: Mapping[str, Reference] = field(default_factory=dict)
    keys: Sequence[bytes] = ()
    pending: int = 0


@dataclass(frozen=True)
class Prepared:
    """The rows of a run. Steps stand in the order of the graph; `before` has their numbers in it."""

    steps: list[PreparedStep]
    positions: list[int]
    before: list[list[int]]
    context: bytes
    on_end: dict[str, Any] | None
    shape: bytes


def prepare(
    host: Host, flow: WorkflowDeclaration, unique: object = None, deadline: object = None
) -> Prepared:
    """The rows of a run. Asks no database. Raises `InvalidWorkflow` with every error.

    `unique` and `deadline` are checked, as `start` takes them.
    """
    preparation = _Preparation(host, flow)
    preparation.check_start(unique, deadline)
    return preparation.make()


class _Preparation:
    """Collects every error of one workflow on the way to its rows."""

    def __init__(self, host: Host, flow: WorkflowDeclaration) -> None:
        self._host = host
        self._flow = flow
        self._faults: list[Fault] = []
        self._heads: dict[tuple[object, ...], _Head] = {}
        self._hints = 0

    def check_start(self, unique: object, deadline: object) -> None:
        """Check what `start` takes."""
        if unique is not None:
            self._check_name(unique, "unique", "")
        if deadline is not None and not seconds_of(deadline):
            self._complain(None, f"deadline {_DURATION}", "deadline")

    def make(self) -> Prepared:
        """The rows, or `InvalidWorkflow`."""
        flow = self._flow
        self._faults += [fault(step, sentence, "add") for step, sentence in flow.faults]
        self._check_name(flow.name, "its name", "")
        context = self._dump_context(flow.context)
        on_end = None if flow.on_end is None else self._store_callback(flow.on_end)
        before = self._find_edges(self._find_names())
        steps = [self._prepare(node) for node in flow.nodes]
        self._check_numbers(len(steps), sum(map(len, before)))
        order = topological_order(before)
        self._check_cycle(before, order)
        if self._faults:
            raise InvalidWorkflow(_shown(flow.name), self._faults)
        number = {position: number for number, position in enumerate(order)}
        ready = [step for step in steps if step is not None]
        for step, sources in zip(ready, before, strict=True):
            step.pending = len(sources)
        return Prepared(
            steps=[ready[position] for position in order],
            positions=order,
            before=[sorted(number[one] for one in before[position]) for position in order],
            context=context,
            on_end=on_end,
            shape=_shape_of(flow.nodes, before),
        )

    def _complain(self, node: Node | None, sentence: str, kind: str, loc: str = "") -> None:
        self._faults.append(
            fault(_shown(node.name) if node is not None else "", sentence, kind, loc)
        )

    # --- the workflow

    def _check_name(self, name: object, what: str, step: str) -> bool:
        """Whether a name can be stored."""
        if not isinstance(name, str):
            sentence = f"{what} must be a text, got {type(name).__name__}"
        elif not 1 <= len(name) <= LONGEST_NAME:
            sentence = f"{what} must have 1 to {LONGEST_NAME} characters, it has {len(name)}"
        elif why := json_storage.complain(name):
            sentence = f"{what} {why}"
        else:
            return True
        self._faults.append(fault(step, sentence, "name"))
        return False

    def _dump_context(self, context: object) -> bytes:
        limit = self._host.settings.max_args_bytes
        try:
            if not isinstance(context, Mapping):
                raise json_storage.NotStorable("not_json", "must be a dict")
            if find_reference(dict(context)) is not None:
                raise json_storage.NotStorable(
                    "reference",
                    "holds the result of a step, which does not exist when the run starts",
                )
            raw = json_storage.dump(dict(context))
            json_storage.check_readable(raw)
            json_storage.check_keys(dict(context))
            if len(raw) > limit:
                raise json_storage.NotStorable(
                    "too_large",
                    f"is {len(raw)} bytes as JSON, more than OPSJOBS_MAX_ARGS_BYTES = {limit}",
                )
        except json_storage.NotStorable as why:
            self._complain(None, f"its context {why}", why.kind)
            return b""
        return raw

    def _check_numbers(self, steps: int, edges: int) -> None:
        if not steps:
            self._complain(None, "it has no step", "empty")
        if steps > MOST_STEPS:
            self._complain(
                None,
                f"it has {steps:,} steps, more than {MOST_STEPS:,}: a map adds steps beyond these, and a "
                "batch has any number of members",
                "too_many_steps",
            )
        if edges > MOST_EDGES:
            self._complain(
                None,
                f"its steps wait for each other {edges:,} times, more than {MOST_EDGES:,}: let steps wait "
                "for one step that all others wait for",
                "too_many_edges",
            )

    def _check_cycle(self, before: list[list[int]], order: Sequence[int]) -> None:
        if cycle := find_cycle(before, order):
            names = [_shown(self._flow.nodes[position].name) for position in cycle]
            more = len(names) - _SHOWN_OF_CYCLE
            shown = names[:_SHOWN_OF_CYCLE] + ([f"({more:,} more)"] if more > 0 else [])
            path = " → ".join([*shown, names[0]])
            self._complain(None, f"its steps wait for each other in a cycle: {path}", "cycle")

    # --- which step waits for which

    def _find_names(self) -> dict[str, int]:
        """The position of each name."""
        positions: dict[str, int] = {}
        for position, node in enumerate(self._flow.nodes):
            if not self._check_name(node.name, "its name", _shown(node.name)):
                continue
            if node.name in positions:
                self._complain(node, "this name is used twice", "duplicate")
            positions.setdefault(node.name, position)
        return positions

    def _find_edges(self, by_name: Mapping[str, int]) -> list[list[int]]:
        """For each step the positions of those that it waits for, each once."""
        of_node = {id(node): position for position, node in enumerate(self._flow.nodes)}
        before = []
        for node in self._flow.nodes:
            found: dict[int, None] = {}
            for one in (*node.after, *(reference.node for reference in references_of(node))):
                known = by_name.get(one) if isinstance(one, str) else of_node.get(id(one))
                if known is None:
                    self._complain_of_source(node, one, by_name)
                else:
                    found[known] = None
            before.append(list(found))
        return before

    def _complain_of_source(self, node: Node, one: object, by_name: Mapping[str, int]) -> None:
        if isinstance(one, str):
            self._hints += 1
            known = list(by_name)[:_COMPARED] if self._hints <= _MOST_HINTS else []
            close = get_close_matches(one[:LONGEST_NAME], known, n=1)
            hint = f": did you mean {_shown(close[0])}?" if close else ""
            self._complain(
                node, f"it waits for {_shown(one)}, which is no step{hint}", "unknown_step"
            )
        elif isinstance(one, Node):
            self._complain(
                node,
                f"it waits for {_shown(one.name)}, a step of another workflow, "
                f"{_shown(one.flow.name)}: add that workflow with add(…)",
                "foreign_step",
            )
        elif one is None:
            self._complain(
                node, "previous stands for a result in a chain, after its first link", "previous"
            )
        else:
            self._complain(
                node,
                f"after takes steps, names and lists of them, got {type(one).__name__}",
                "after",
            )

    # --- one step

    def _prepare(self, node: Node) -> PreparedStep | None:
        if node.on_failure not in ON_FAILURE:
            self._complain(node, 'on_failure must be "cancel" or "continue"', "on_failure")
        if not isinstance(node.may_fail, bool):
            self._complain(node, "may_fail must be True or False", "may_fail")
        for reference in references_of(node):
            self._check_reference(node, reference)
        if isinstance(node, Wait):
            return self._prepare_wait(node)
        assert isinstance(node, Step)
        if not isinstance(node.link, ChainLink):
            self._complain(
                node,
                f"it calls {type(node.link).__name__}, which is no task: declare the function with "
                "@opsjobs.task",
                "not_a_task",
            )
            return None
        return (
            self._prepare_map(node, node.link)
            if isinstance(node, Map)
            else self._prepare_call(node, node.link)
        )

    def _check_reference(self, node: Node, reference: Reference) -> None:
        for key in reference.path:
            is_key = isinstance(key, str) and json_storage.complain(key) is None
            is_number = isinstance(key, int) and not isinstance(key, bool) and abs(key) < 2**31
            if not (is_key or is_number):
                self._complain(
                    node,
                    f"{type(key).__name__} is no part of a path: in result[…] stand names and whole numbers",
                    "path",
                )
        if reference.is_list and reference.path:
            self._complain(node, "the results of a map are taken whole: take .results", "path")
        source = reference.node
        if isinstance(source, Step) and isinstance(source.link, ChainLink):
            task = source.link.task
            if not task.record_output:
                self._complain(
                    node,
                    f"it takes the result of {_shown(source.name)}, but task {task.name} keeps none: "
                    "declare it with record_output=True",
                    "no_output",
                )

    def _prepare_wait(self, node: Wait) -> PreparedStep:
        names = node.signals
        if not isinstance(names, list) or not 1 <= len(names) <= _MOST_SIGNALS:
            self._complain(
                node,
                f"give signal=, the name of a signal, or signals=, a list of 1 to {_MOST_SIGNALS} names",
                "signals",
            )
        else:
            for name in names:
                self._check_name(name, "the name of its signal", _shown(node.name))
        if node.key != "":
            self._check_name(node.key, "its key", _shown(node.name))
        if node.timeout is not None and not seconds_of(node.timeout):
            self._complain(
                node,
                f"timeout {_DURATION}",
                "timeout",
            )
        return PreparedStep(
            node,
            WAIT_TASK,
            WAIT_QUEUE,
            WAIT_QUEUE,
            _WAITS.columns,
            _WAITS.place,
            b"{}",
            _WAIT_OPTIONS,
        )

    def _prepare_call(self, node: Step, link: ChainLink) -> PreparedStep | None:
        task, options = link.task, link.chosen
        head = self._head_of(node, task, options)
        call = self._check_call(node, link)
        if call is None:
            return None
        takes, values, args = call
        place = self._place(node, link, values, takes)
        locks = self._find_keys(node, link, values, takes)
        lane = options.queue
        columns = head.place
        if place is not None:
            found = columns_of(options.queue, place)
            lane, columns = found["lane"], _as_copied(found)
        return PreparedStep(
            node, task.name, options.queue, lane, head.columns, columns, args, options, takes, locks
        )

    def _prepare_map(self, node: Map, link: ChainLink) -> PreparedStep | None:
        task, options = link.task, link.chosen
        if not isinstance(node.over, Reference):
            self._complain(
                node,
                "over must be the result of another step, such as fetch.result: add a step for each element "
                "of a list that you have already",
                "over",
            )
        if options.unique is not None:
            self._complain(
                node,
                f"its elements would share or lack the unique lock of task {task.name}: "
                "give options(unique=None)",
                "unique",
            )
        self._head_of(node, task, options)
        call = self._check_call(node, link, element=node.as_)
        if call is None or not isinstance(node.over, Reference):
            return None
        takes, _, args = call
        stored = {
            "task": task.name,
            "as_": node.as_,
            "options": _stored(options, None),
        }
        raw = json.dumps(stored).encode()[:-1] + b', "args": ' + args + b"}"
        over = {"over": node.over, **{f"args.{name}": one for name, one in takes.items()}}
        # The members have the other options of the call.
        own = Options(queue=options.queue, priority=options.priority, delay=options.delay)
        head = _Head(MAP_TASK, own)
        return PreparedStep(
            node, MAP_TASK, own.queue, own.queue, head.columns, head.place, raw, own, over
        )

    def _check_call(
        self, node: Step, link: ChainLink, element: object = None
    ) -> tuple[dict[str, Reference], dict[str, Any], bytes] | None:
        """The results that a call takes, its other values, and these as JSON; None when it has errors.

        `element` is the parameter of a map that gets an element.
        """
        task = link.task
        arguments = task.arguments
        named, found = arguments.by_name(link.args, link.kwargs)
        takes = {name: one for name, one in named.items() if isinstance(one, Reference)}
        given = {name: one for name, one in named.items() if name not in takes}
        later = frozenset(takes) if element is None else frozenset((*takes, str(element)))
        found += _faults_of_later(task, later, named, element)
        values, raw = {}, b"{}"
        try:
            arguments = arguments.without(later)
            values = arguments.validate((), given)
            raw = arguments.dump(values, self._host.settings.max_args_bytes)
        except InvalidArgs as error:
            found += error.errors
        except DeclarationError as error:
            found.append({"loc": "", "msg": str(error), "type": "declaration"})
        if found and find_reference(given) is not None:
            found = [self._explain(one, given) for one in found]
        for one in found:
            self._complain(node, one["msg"], one["type"], one["loc"])
        return None if found else (takes, values, raw)

    @staticmethod
    def _explain(error: dict[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
        """The error of an argument that holds a result inside of a list or dict."""
        name = str(error["loc"]).partition("[")[0].partition(".")[0]
        if find_reference(given.get(name)) is None:
            return error
        message = "holds the result of a step inside: give each result as an argument of its own"
        return {"loc": name, "msg": message, "type": "reference"}

    def _place(
        self,
        node: Step,
        link: ChainLink,
        values: Mapping[str, Any],
        takes: Mapping[str, Reference],
    ) -> LimitPlace | None:
        limit = link.chosen.limit
        if limit is None:
            return None
        for what, chosen in (("partition", limit.partition), ("weight", limit.weight)):
            if sentence := _needs_result(f"the {what} of limit {limit.name}", chosen, takes):
                self._complain(node, sentence, "limit")
                return None
        try:
            return place_of(link.task, limit, self._host, values)
        except InvalidArgs as error:
            self._complain(node, error.errors[0]["msg"], "limit", error.errors[0]["loc"])
            return None

    def _find_keys(
        self,
        node: Step,
        link: ChainLink,
        values: Mapping[str, Any],
        takes: Mapping[str, Reference],
    ) -> Sequence[bytes]:
        unique = link.chosen.unique
        if unique is None:
            return ()
        named = [name for name in (unique.by if unique.by is not None else takes) if name in takes]
        if takes and (named or unique.key is not None):
            self._complain(
                node,
                f"its unique lock needs the result that {next(iter(named or takes))} takes, but it is taken "
                "when the run starts: make it unique by other arguments, or start the workflow with unique=",
                "unique",
            )
            return ()
        known = link.task.arguments.without(frozenset(takes))
        try:
            return keys(link.task, unique, self._host, values, known)
        except InvalidArgs as error:
            self._complain(node, error.errors[0]["msg"], "unique")
            return ()

    # --- options

    def _head_of(self, node: Node, task: Task, options: Options) -> _Head:
        """The columns that all calls of a task with the same options share. Their errors are named once."""
        key = (task.name, id(options))
        if key not in self._heads:
            self._check_options(node, task, options)
            self._heads[key] = _Head(task.name, options)
        return self._heads[key]

    def _check_options(self, node: Node | None, task: Task, options: Options) -> None:
        if task.name not in self._host.tasks:
            self._complain(
                node, f"task {task.name} is not declared on this OpsJobs", "unknown_task"
            )
        if options.scheduled_at is not None:
            self._complain(
                node,
                "a step has no scheduled_at: give it a delay, which counts from its release",
                "options",
            )
        if options.session is not None:
            self._complain(node, "give the session to start(session=…), not to a step", "options")
        try:
            parameters(task, options, self._host)
        except InvalidArgs as error:
            self._complain(
                node, error.errors[0]["msg"], error.errors[0]["type"], error.errors[0]["loc"]
            )

    def _store_callback(self, on_end: object) -> dict[str, Any] | None:
        """What the end of a run needs to enqueue its callback, so that it needs no code of the host."""
        found = store_callback(self._host, on_end, FACTS)
        if isinstance(found, str):
            self._complain(None, f"its on_end {found}", "on_end")
            return None
        return found


def store_callback(host: Host, given: object, facts: Sequence[str]) -> dict[str, Any] | str:
    """A task with its options as JSON, to be enqueued when a run or batch ends; or a sentence: what is wrong.

    The job will get those of the `facts` that the task accepts, and must accept the first.
    """
    if isinstance(given, Task):
        task, options = given, given.declared
    elif isinstance(given, Call):
        task, options = given.task, given.chosen
    else:
        return f"must be a task, got {type(given).__name__}"
    if task.name not in host.tasks:
        return f"is task {task.name}, which is not declared on this OpsJobs"
    if options.scheduled_at is not None or options.delay or options.session is not None:
        return "takes no delay, scheduled_at or session"
    names, defaults = task.arguments.names, task.arguments.defaults
    if facts[0] not in names:
        return f"is task {task.name}, which does not accept {facts[0]}"
    if missing := [name for name in names if name not in facts and name not in defaults]:
        return f"is task {task.name}, which needs {missing[0]}: it gets only {', '.join(facts)}"
    place = None
    if (limit := options.limit) is not None:
        if limit.partition is not None or not isinstance(limit.weight, int):
            return (
                f"is task {task.name}, whose limit {limit.name} has a partition or weight by argument: "
                "the arguments are not known yet"
            )
        place = LimitPlace(limit.name, "", limit.weight)
    return {
        **_stored(options, place),
        "task": task.name,
        "accepts": [n for n in names if n in facts],
    }


def _stored(options: Options, place: LimitPlace | None) -> dict[str, Any]:
    """Options as JSON: those that a job gets which is enqueued later."""
    columns = options.enqueue_parameters
    if place is not None:
        columns = {**columns, **columns_of(options.queue, place)}
    names = ("queue", "lane", "priority", "max_attempts", "timeout_seconds", "tags")
    return {
        **{name: columns[name] for name in (*names, "limiter", "partition", "weight")},
        "meta": dict(options.meta or {}),
        "deadline_seconds": None if options.deadline is None else seconds_of(options.deadline),
    }


class _Head:
    """The columns of a job that come from its task and its options, in COPY's format."""

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
        self.columns = "".join(copy_text.column(one) + "\t" for one in row).encode()
        self.place = _as_copied(columns)


_WAIT_OPTIONS = Options(queue=WAIT_QUEUE, max_attempts=1)


def _as_copied(columns: Mapping[str, Any]) -> bytes:
    names = ("lane", "limiter", "partition", "weight")
    return "".join(copy_text.column(columns[name]) + "\t" for name in names).encode()


_WAITS = _Head(WAIT_TASK, _WAIT_OPTIONS)


def _faults_of_later(
    task: Task, later: frozenset[str], named: Mapping[str, Any], element: object
) -> list[dict[str, Any]]:
    """What is wrong with the parameters whose values come later. `element` is one of them, or None."""
    found = []
    for name in sorted(later):
        if name in task.redact:
            message = "is redacted: its value is never stored, so it cannot be a result"
            found.append({"loc": name, "msg": message, "type": "redacted"})
        elif name not in task.arguments.names:
            message = "the task takes no such argument"
            found.append({"loc": name, "msg": message, "type": "extra_forbidden"})
    if element is not None and element in named:
        message = "is the parameter that gets each element: do not give it a value too"
        found.append({"loc": str(element), "msg": message, "type": "given_twice"})
    return found


def _needs_result(what: str, chosen: object, takes: Mapping[str, Reference]) -> str | None:
    """The sentence when a partition or weight is computed from a result; None when it is not."""
    if isinstance(chosen, str) and chosen in takes:
        return f"{what} is {chosen}, the result of a step: it must be known when the run starts"
    if callable(chosen) and takes:
        return (
            f"{what} is a function of the arguments, and {next(iter(takes))} is the result of a step: "
            "let it name one argument that is known when the run starts"
        )
    return None


def _shape_of(nodes: Sequence[Node], before: Sequence[Sequence[int]]) -> bytes:
    """A hash of the names, tasks and edges. Equal workflows have equal shapes, whatever their arguments."""
    digest = hashlib.blake2b(digest_size=16)
    for node, positions in zip(nodes, before, strict=True):
        link = getattr(node, "link", None)
        task = link.task.name if isinstance(link, ChainLink) else WAIT_TASK
        digest.update(json.dumps([node.name, node.kind, task, sorted(positions)]).encode())
    return digest.digest()


def _shown(name: object) -> str:
    """A name as an error shows it: on one line and not too long."""
    if not isinstance(name, str):
        return type(name).__name__
    line = json_storage.clean_text(" ".join(name.split())) or "''"
    return line if len(line) <= 60 else line[:60] + "…"


def fault(step: str, sentence: str, kind: str, loc: str = "") -> Fault:
    """One of the `errors` of `InvalidWorkflow`."""
    return {"step": step, "loc": loc, "msg": sentence, "type": kind}


def edges_of(prepared: Prepared) -> Iterator[tuple[int, int, bytes]]:
    """Each edge as the numbers of its two steps, and what happens when the first does not finish."""
    for number, (step, sources) in enumerate(zip(prepared.steps, prepared.before, strict=True)):
        for source in sources:
            goes_on = prepared.steps[source].node.may_fail or step.node.on_failure == "continue"
            yield source, number, b"continue" if goes_on else b"cancel"
