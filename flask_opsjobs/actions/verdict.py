"""What a plan says of one target: that it can be acted on and how, or why not; and the facts that this rests on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from ..core import words
from .catalog import Action
from .effects import Effect
from .shapes import Change, Item, Skip


class ChangedMeanwhile(Exception):
    """Somebody committed what is in the way after it was looked for: look again."""


class NothingWritten(Exception):
    """What was judged well could not be written, and would not be the next time; the text says why."""


@dataclass(frozen=True)
class Verdict:
    """One target, with either `item` or `skip`. `standing` is its row; `facts` are JSON-able words of it."""

    target: str
    facts: Mapping[str, Any]
    item: Item | None = None
    skip: Skip | None = None
    standing: Any = None

    @property
    def weight(self) -> Any:
        """What must be the same at the execution: all facts of what is acted on, else only why it is not."""
        return dict(self.facts) if self.skip is None else self.skip.code


@dataclass(frozen=True)
class Written:
    """What was written: the items as they came out, the facts afterwards, and what follows the commit."""

    items: tuple[Item, ...]
    after: Mapping[str, Any]
    effects: tuple[Effect, ...] = ()


@dataclass(frozen=True)
class Decided:
    """Who decided it, why and when."""

    actor: str
    reason: str
    now: datetime
    params: Mapping[str, Any] = field(default_factory=dict)


def do(target: str, name: str, facts: Mapping[str, Any], standing: Any, *changes: Change | None,
       note: str | None = None) -> Verdict:  # fmt: skip
    """That it can be acted on. Changes that are None are left out."""
    item = Item(target, name, tuple(change for change in changes if change is not None), note)
    return Verdict(target, facts, item=item, standing=standing)


def leave(target: str, name: str | None, facts: Mapping[str, Any], code: str, says: str) -> Verdict:
    """That it cannot."""
    return Verdict(target, facts, skip=Skip(target, name, code, says))


def illegal(
    action: Action, target: str, name: str, facts: Mapping[str, Any], state: str
) -> Verdict:
    """That its state forbids it."""
    said = f"cannot {action.on(target.replace('/', ' ', 1))}: it is {state}"
    return leave(target, name, facts, "illegal", said)


def moment(value: datetime | None) -> str | None:
    """A time in words, to the second."""
    return None if value is None else words.moment(value)


def exact(value: datetime | None) -> str | None:
    """A time as a fact, to the microsecond."""
    return None if value is None else value.astimezone(UTC).isoformat()
