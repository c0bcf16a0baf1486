"""Builds workflows in Python: steps, waits and maps, and which of them wait for which. Writes nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from copy import copy
from functools import partial
from typing import Any, TypeVar

from sqlalchemy.orm import Session, scoped_session

from ..core.words import show_value
from ..errors import InvalidWorkflow
from ..host import Host
from ..jobs.record.task import Call, ChainLink, Task
from .declaration import (
    Duration,
    Group,
    Map,
    Node,
    Step,
    Wait,
    WorkflowDeclaration,
    change_references,
    flatten,
    references_of,
)
from .faults import Faults, show_name
from .prepare import MOST_STEPS, TOO_MANY_STEPS
from .references import Reference
from .start import Started, start

AnyNode = TypeVar("AnyNode", bound=Node)
# What a step of a workflow calls.
Callee = Task | Call | ChainLink


class Workflow(WorkflowDeclaration):
    """Jobs that belong together, and which of them wait for which. `OpsJobs.workflow` makes it.

    Building writes and checks nothing: `start` names all errors at once.

    >>> flow = opsjobs.workflow("invoices")
    >>> first = flow.step("first", send_invoice, invoice_id=9001)
    >>> second = flow.step("second", send_invoice, invoice_id=9002, after=first)
    >>> run = flow.start()
    >>> db.session.commit()
    >>> run.steps, run.conflict
    (2, False)
    """

    def __init__(
        self,
        name: str,
        *,
        host: Callable[[], Host],
        context: Mapping[str, Any] | None = None,
        on_end: Task | Call | None = None,
    ) -> None:
        super().__init__(name, context, on_end)
        self.host = host

    def __repr__(self) -> str:
        return f"<Workflow {self.name!r} of {len(self.nodes)} steps>"

    def step(
        self,
        name: str,
        task: Callee,
        /,
        *,
        after: object = (),
        on_failure: str = "cancel",
        may_fail: bool = False,
        **arguments: Any,
    ) -> Step:
        """Add a step that calls a task with these arguments.

        `task` may be a task, a task with other options, such as `sync.options(queue="slow")`, or a call that
        holds its arguments, such as `sync.s(after=7)`, for a task with a parameter named like one of these
        options. An argument may be the result of another step; the step then waits for that step.

        `after` takes steps, waits, maps, groups, names of steps, and lists of them. When a step before it
        does not finish, the step is canceled; with `on_failure="continue"` it runs anyway, and the result of
        that step is None. With `may_fail=True` nothing is canceled because of this step, and the run may
        finish without it.

        >>> flow = opsjobs.workflow("invoices")
        >>> first = flow.step("first", send_invoice, invoice_id=9001)
        >>> slow = send_invoice.options(queue="slow", delay=60)
        >>> flow.step("second", slow, invoice_id=9002, after=first)
        <Step 'second'>
        """
        step = Step(self, name, _with_arguments(task, arguments), after, may_fail)
        step.on_failure = on_failure
        return self._keep(step)

    def wait(
        self,
        name: str,
        /,
        *,
        signal: str | None = None,
        signals: Iterable[str] | None = None,
        key: str = "",
        timeout: Duration | None = None,
        after: object = (),
        may_fail: bool = False,
    ) -> Wait:
        """Add a step that waits for a signal with this name and key, or for the first of several `signals`.

        The wait opens when the steps before it have finished. Its `result` is the payload of the signal. When
        `timeout`, seconds or a `timedelta`, has passed since it opened, the wait fails.

        >>> flow = opsjobs.workflow("order")
        >>> flow.wait("paid", signals=["payment", "voucher"], key="order-42", timeout=timedelta(hours=2))
        <Wait 'paid'>
        """
        if signals is None:
            given: object = None if signal is None else [signal]
        elif signal is not None or isinstance(signals, str) or not isinstance(signals, Iterable):
            given = None
        else:
            given = list(signals)
        return self._keep(Wait(self, name, given, key, timeout, after=after, may_fail=may_fail))

    def map(
        self,
        name: str,
        task: Callee,
        /,
        *,
        over: Reference,
        as_: str,
        after: object = (),
        may_fail: bool = False,
        **arguments: Any,
    ) -> Map:
        """Add a step that becomes one step per element of a list, which another step returns.

        `over` is that result. `as_` is the parameter of the task that gets the element; all calls have the
        other arguments in common. Its `results` are the list of what the calls return.

        >>> @opsjobs.task(record_output=True)
        ... def list_unpaid() -> list[int]:
        ...     return [9001, 9002]
        >>> flow = opsjobs.workflow("invoices")
        >>> unpaid = flow.step("unpaid", list_unpaid)
        >>> flow.map("send", send_invoice, over=unpaid.result, as_="invoice_id")
        <Map 'send'>
        """
        link = _with_arguments(task, arguments)
        return self._keep(Map(self, name, link, over, as_, after=after, may_fail=may_fail))

    def add(self, prefix: str, other: Workflow, /, *, after: object = ()) -> Group:
        """Add the steps that another workflow has now, each under the name `prefix.name`.

        Those that wait for nothing in it wait for `after`. Returns the added steps by their names in `other`;
        the group itself may stand in `after`. Raises `InvalidWorkflow` when it would have more than 10,000
        steps.

        >>> reminders = opsjobs.workflow("reminders")
        >>> first = reminders.step("first", send_invoice, invoice_id=9001)
        >>> flow = opsjobs.workflow("month")
        >>> added = flow.add("reminders", reminders)
        >>> flow.step("last", send_invoice, invoice_id=9002, after=added)
        <Step 'last'>
        >>> added["first"].name
        'reminders.first'
        """
        if not isinstance(other, Workflow):
            self.faults.append(
                f"add({show_value(prefix)}) takes a workflow, got {type(other).__name__}"
            )
            return Group({}, ())
        if len(self.nodes) + len(other.nodes) > MOST_STEPS:
            # At once: a workflow that is added to itself again and again would fill the memory.
            faults = Faults()
            sentence = f"with add({show_value(prefix)}) it has too many steps: {TOO_MANY_STEPS}"
            faults.add(None, "too_many_steps", sentence)
            raise InvalidWorkflow(show_name(self.name), faults.all)
        self.faults += [
            f"add({show_value(prefix)}): {fault}"
            for fault in _faults_of_adding(self, prefix, other)
        ]
        return _Inlined(self, prefix, other, list(flatten(after))).group

    def start(
        self,
        *,
        unique: str | None = None,
        session: Session | scoped_session[Any] | None = None,
        deadline: Duration | None = None,
    ) -> Started:
        """Start a run in the transaction of the host's session; the host commits. May be called again.

        With `unique`, a text, at most one run of this workflow's name with this text is open: a second
        `start` writes nothing and returns the open run, with `conflict`; it ignores the new `deadline`. A run
        that has not ended `deadline` (seconds or a `timedelta`) after its start is canceled and fails.
        Raises `InvalidWorkflow` with every error, and then nothing was written; `WrongSession`;
        `SchemaBehind`; and what Postgres raises.

        >>> flow = opsjobs.workflow("invoices")
        >>> first = flow.step("first", send_invoice, invoice_id=9001)
        >>> run = flow.start(unique="march", deadline=timedelta(days=1))
        >>> again = flow.start(unique="march")
        >>> again.id == run.id, again.conflict
        (True, True)
        """
        return start(self.host(), self, unique=unique, session=session, deadline=deadline)

    def _keep(self, node: AnyNode) -> AnyNode:
        self.nodes.append(node)
        return node


def make_chain(flow: Workflow, links: Sequence[Callee]) -> Workflow:
    """Add the links to an empty workflow, each after the one before; `previous` is the result of that one."""
    before: Step | None = None
    for name, link in zip(_name_links(links), links, strict=True):
        step = flow.step(name, link, after=before)
        if before is not None:
            change_references(step, partial(_replace_previous, before))
        before = step
    return flow


def _name_links(links: Iterable[Callee]) -> Iterator[str]:
    """The name of each link's task, with a number from the second time on: `bill`, `bill-2`."""
    taken: set[str] = set()
    last: dict[str, int] = {}
    for link in links:
        task = link.task if isinstance(link, ChainLink | Call) else link
        wanted = name = task.name if isinstance(task, Task) else type(task).__name__
        while name in taken:
            last[wanted] = last.get(wanted, 1) + 1
            name = f"{wanted}-{last[wanted]}"
        taken.add(name)
        yield name


def _replace_previous(before: Step, value: Any) -> Any:
    if isinstance(value, Reference) and value.node is None:
        return Reference(before, value.path)
    return value


class _Inlined:
    """Copies the nodes of one workflow into another."""

    def __init__(self, flow: Workflow, prefix: str, other: Workflow, after: list[object]) -> None:
        self._prefix = prefix
        originals = list(other.nodes)
        self._copies = {id(node): copy(node) for node in originals}
        self._by_name = {node.name: node for node in originals if isinstance(node.name, str)}
        awaited: set[int] = set()
        for node in originals:
            sources = [source for source in self._sources(node) if id(source) in self._copies]
            awaited.update(id(source) for source in sources if source is not node)
            self._move(node, flow, after if not sources else [])
        last = [self._copies[id(node)] for node in originals if id(node) not in awaited]
        named = {name: self._copies[id(node)] for name, node in self._by_name.items()}
        self.group = Group(named, last)

    def _sources(self, node: Node) -> Iterator[object]:
        for one in node.after:
            yield self._by_name.get(one) if isinstance(one, str) else one
        for reference in references_of(node):
            yield reference.node

    def _move(self, node: Node, flow: Workflow, after: list[object]) -> None:
        moved = self._copies[id(node)]
        moved.flow = flow
        if isinstance(node.name, str):
            moved.name = f"{self._prefix}.{node.name}"
        moved.after = [*map(self._moved, node.after), *after]
        change_references(moved, self._moved_reference)
        flow.nodes.append(moved)

    def _moved(self, one: object) -> object:
        """What an original waits for, as its copy does."""
        if isinstance(one, str):
            named = self._by_name.get(one)
            return f"{self._prefix}.{one}" if named is None else self._copies[id(named)]
        return self._copies.get(id(one), one)

    def _moved_reference(self, value: Any) -> Any:
        """A value of an original as its copy has it."""
        if not isinstance(value, Reference):
            return value
        node = self._copies.get(id(value.node), value.node)
        return Reference(node, value.path, is_list=value.is_list)


def _faults_of_adding(flow: Workflow, prefix: object, other: Workflow) -> Iterator[str]:
    if other is not flow:
        yield from other.faults
    if not isinstance(prefix, str):
        yield f"the prefix must be a text, got {type(prefix).__name__}"
    if other.on_end is not None:
        yield "it has an on_end, which only a workflow that is started itself can call"
    if isinstance(flow.context, Mapping) and isinstance(other.context, Mapping):
        for name, value in other.context.items():
            if name not in flow.context or not _is_same(flow.context[name], value):
                yield (
                    f"its context has {show_value(name)}: give this workflow the same, since a run has "
                    "one context"
                )


def _is_same(one: object, other: object) -> bool:
    """Whether two values are equal. Those that cannot be compared cannot be stored either."""
    try:
        return one is other or bool(one == other)
    except Exception:
        return False


def _with_arguments(task: object, arguments: dict[str, Any]) -> object:
    """The call of a step; what is no task stays as it is, and `start` says so."""
    if isinstance(task, ChainLink):
        if not arguments:
            return task
        kwargs = {**task.kwargs, **arguments}
        return ChainLink(task.task, task.chosen, task.args, kwargs)
    if isinstance(task, Task | Call):
        return task.s(**arguments)
    return task
