"""Refers to results of steps, which do not exist yet while a workflow is built."""

from __future__ import annotations

from typing import Any, NoReturn

from ..core.words import show_value
from .faults import show_name

# What `current[key]` takes: a name in an object, or a number in a list.
Key = str | int


class Reference:
    """The result of a step, or a part of it: `fetch.result["rows"][0]`. Give it as an argument of a step.

    The value is read when the step is released. Until then it is not known, so a reference cannot be
    compared, tested by `if`, looped over or written into a text.

    >>> flow = opsjobs.workflow("invoices")
    >>> first = flow.step("first", send_invoice, invoice_id=9001)
    >>> first.result["number"]
    <result of first['number']>
    >>> f"number {first.result}"
    Traceback (most recent call last):
    TypeError: <result of first> is not known while the workflow is built: ...
    """

    __slots__ = ("is_list", "node", "path")

    def __init__(self, node: Any, path: tuple[Key, ...] = (), *, is_list: bool = False) -> None:
        self.node = node
        self.path = path
        self.is_list = is_list

    def __getitem__(self, key: Key) -> Reference:
        """A part of the result. Whether `key` can be one is checked when the workflow starts."""
        return Reference(self.node, (*self.path, key), is_list=self.is_list)

    def __repr__(self) -> str:
        where = "".join(f"[{show_value(key)}]" for key in self.path)
        name = getattr(self.node, "name", None)
        return (
            "<previous" + where + ">" if name is None else f"<result of {show_name(name)}{where}>"
        )

    def _refuse(self, *_: object) -> NoReturn:
        raise TypeError(
            f"{self!r} is not known while the workflow is built: give it to a step as an argument of its own"
        )

    # Without these, Python would loop over it for ever, take it for true, take it for unequal to every value,
    # or write its name into a text.
    __iter__ = __contains__ = __len__ = __bool__ = __str__ = __format__ = _refuse
    __eq__ = __ne__ = __lt__ = __le__ = __gt__ = __ge__ = _refuse
    __hash__ = object.__hash__


# In a chain: the result of the link before.
previous = Reference(None)


def find_reference(value: object) -> Reference | None:
    """The first reference inside of a list, tuple, set or dict; None without one."""
    todo, seen = [value], set()
    while todo:
        one = todo.pop()
        if isinstance(one, Reference):
            return one
        if id(one) in seen:
            continue
        seen.add(id(one))
        if isinstance(one, dict):
            todo.extend(one.values())
        elif isinstance(one, list | tuple | set | frozenset):
            todo.extend(one)
    return None
