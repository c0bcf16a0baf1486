"""Declares workflows as data: their steps, waits and maps, and which of them wait for which."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import timedelta
from typing import Any, NoReturn, TypeGuard

from ..jobs.record.task import Call, ChainLink, Task
from .faults import show_name
from .references import Reference

Duration = float | timedelta
# The tasks of jobs that call no function of the host.
WAIT_TASK = "opsjobs.wait"
MAP_TASK = "opsjobs.map"
WAIT_QUEUE = "default"


class WorkflowDeclaration:
    """What a host built: the nodes of a graph, and what a run of it knows.

    `faults` are sentences about what `Workflow.add` was given.
    """

    def __init__(
        self, name: str, context: Mapping[str, Any] | None, on_end: Task | Call | None
    ) -> None:
        self.name = name
        self.context = {} if context is None else context
        self.on_end = on_end
        self.nodes: list[Node] = []
        self.faults: list[str] = []


class Node:
    """What a workflow consists of: a step, a wait or a map. `Workflow` makes it."""

    kind = ""

    def __init__(self, flow: WorkflowDeclaration, name: str, after: object, may_fail: bool) -> None:
        self.flow = flow
        self.name = name
        self.after = list(flatten(after))
        self.may_fail = may_fail
        self.on_failure = "cancel"

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r}>"


class Step(Node):
    """A step that calls a task. `Workflow.step` makes it.

    >>> opsjobs.workflow("invoices").step("first", send_invoice, invoice_id=9001)
    <Step 'first'>
    """

    kind = "job"

    def __init__(
        self, flow: WorkflowDeclaration, name: str, link: object, after: object, may_fail: bool
    ) -> None:
        super().__init__(flow, name, after, may_fail)
        self.link = link

    @property
    def result(self) -> Reference:
        """The value that its function will return; `.result["rows"][0]` is a part of it.

        >>> @opsjobs.task(record_output=True)
        ... def fetch(account_id: int) -> dict[str, str]:
        ...     return {"email": "eva@example.com"}
        >>> @opsjobs.task
        ... def write_to(address: str) -> None:
        ...     print(f"writing to {address}")
        >>> flow = opsjobs.workflow("letter")
        >>> customer = flow.step("customer", fetch, account_id=42)
        >>> letter = flow.step("letter", write_to, address=customer.result["email"])
        >>> flow.start().steps
        2
        """
        return Reference(self)


class Map(Step):
    """A step that becomes one step per element of a list. `Workflow.map` makes it.

    >>> @opsjobs.task(record_output=True)
    ... def list_unpaid() -> list[int]:
    ...     return [9001, 9002]
    >>> flow = opsjobs.workflow("invoices")
    >>> unpaid = flow.step("unpaid", list_unpaid)
    >>> flow.map("send", send_invoice, over=unpaid.result, as_="invoice_id")
    <Map 'send'>
    """

    kind = "map"

    def __init__(
        self,
        flow: WorkflowDeclaration,
        name: str,
        link: object,
        over: object,
        as_: str,
        **common: Any,
    ) -> None:
        super().__init__(flow, name, link, **common)
        self.over = over
        self.as_ = as_

    @property
    def result(self) -> NoReturn:
        """A map has `results`, not one result.

        >>> @opsjobs.task(record_output=True)
        ... def list_unpaid() -> list[int]:
        ...     return [9001, 9002]
        >>> flow = opsjobs.workflow("invoices")
        >>> unpaid = flow.step("unpaid", list_unpaid)
        >>> flow.map("send", send_invoice, over=unpaid.result, as_="invoice_id").result
        Traceback (most recent call last):
        AttributeError: map send has no result: ...
        """
        raise AttributeError(f"map {show_name(self.name)} has no result: take its results, a list")

    @property
    def results(self) -> Reference:
        """The list of the values that the calls for all elements will return, in the order of the elements.

        >>> @opsjobs.task(record_output=True)
        ... def list_files() -> list[str]:
        ...     return ["a.txt", "b.txt"]
        >>> @opsjobs.task(record_output=True)
        ... def count_lines(file: str) -> int:
        ...     return 10
        >>> @opsjobs.task
        ... def add_up(numbers: list[int]) -> None:
        ...     print(sum(numbers))
        >>> flow = opsjobs.workflow("count")
        >>> files = flow.step("files", list_files)
        >>> counts = flow.map("counts", count_lines, over=files.result, as_="file")
        >>> total = flow.step("total", add_up, numbers=counts.results)
        >>> flow.start().steps
        3
        """
        return Reference(self, is_list=True)


class Wait(Node):
    """A step that calls no function and that a signal ends. `Workflow.wait` makes it.

    >>> opsjobs.workflow("order").wait("paid", signal="payment", key="order-42")
    <Wait 'paid'>
    """

    kind = "wait"

    def __init__(
        self,
        flow: WorkflowDeclaration,
        name: str,
        signals: Any,
        key: str,
        timeout: Duration | None,
        **common: Any,
    ) -> None:
        super().__init__(flow, name, **common)
        self.signals = signals
        self.key = key
        self.timeout = timeout

    @property
    def result(self) -> Reference:
        """The payload of the signal that will end the wait.

        >>> @opsjobs.task
        ... def book(amount: int) -> None:
        ...     print(f"booked {amount}")
        >>> flow = opsjobs.workflow("payment")
        >>> paid = flow.wait("paid", signal="payment", key="order-42", timeout=timedelta(hours=2))
        >>> booking = flow.step("book", book, amount=paid.result["amount"])
        >>> flow.start().steps
        2
        """
        return Reference(self)


class Group(Mapping[str, Any]):
    """The steps that `Workflow.add` added, by their names in the workflow that was added.

    After a group means: after those of its steps that none of its other steps waits for.

    >>> reminders = opsjobs.workflow("reminders")
    >>> first = reminders.step("first", send_invoice, invoice_id=9001)
    >>> list(opsjobs.workflow("month").add("reminders", reminders))
    ['first']
    """

    def __init__(self, nodes: Mapping[str, Node], last: Iterable[Node]) -> None:
        self._nodes = dict(nodes)
        self.last = tuple(last)

    def __getitem__(self, name: str) -> Any:
        return self._nodes[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._nodes)

    def __len__(self) -> int:
        return len(self._nodes)


def references_of(node: Node) -> list[Reference]:
    """The results that a step takes, of its arguments and of the list of a map."""
    link = getattr(node, "link", None)
    values = [*link.args, *link.kwargs.values()] if isinstance(link, ChainLink) else []
    over = [node.over] if isinstance(node, Map) else []
    return [value for value in (*over, *values) if isinstance(value, Reference)]


def change_references(node: Node, change: Callable[[Any], Any]) -> None:
    """Change every value of a step in which a reference may stand."""
    if isinstance(node, Map):
        node.over = change(node.over)
    if isinstance(node, Step) and isinstance(node.link, ChainLink):
        link = node.link
        kwargs = {name: change(value) for name, value in link.kwargs.items()}
        node.link = ChainLink(link.task, link.chosen, tuple(map(change, link.args)), kwargs)


def flatten(after: object) -> Iterator[object]:
    """What a step waits for, one by one: nodes and names of steps; what is neither is an error of `start`.

    A list that contains itself is one of these errors.
    """
    inside: dict[int, Iterator[object]] = {0: iter((after,))}
    while inside:
        last, ones = next(reversed(inside.items()))
        for one in ones:
            if isinstance(one, Group):
                yield from one.last
            elif is_list(one) and id(one) not in inside:
                inside[id(one)] = iter(one)
                break
            elif one is not None:
                yield one
        else:
            del inside[last]


def is_list(after: object) -> TypeGuard[Iterable[object]]:
    """Whether `after` gives several things to wait for, one of which may be a list again."""
    return isinstance(after, Iterable) and not isinstance(after, str | bytes | Mapping | Reference)
