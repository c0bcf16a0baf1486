"""Plans an action for one target: its changes, or why it is skipped, and the facts that this depends on."""

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
    """Another transaction committed a conflicting change after the plan was read: plan again."""


class NothingWritten(Exception):
    """A planned change could not be written, and a second try would fail too; the text says why."""


@dataclass(frozen=True)
class TargetPlan:
    """The plan of one target, with either `item` or `skip`.

    `row` is the row that was read, `facts` its values as JSON.
    """

    target: str
    facts: Mapping[str, Any]
    item: Item | None = None
    skip: Skip | None = None
    row: Any = None

    @property
    def weight(self) -> Any:
        """What must not change until execution: facts of an eligible target, or the code of a skipped one."""
        return dict(self.facts) if self.skip is None else self.skip.code


@dataclass(frozen=True)
class Written:
    """What was written: the items with their results, the facts afterwards, and the effects of the commit."""

    items: tuple[Item, ...]
    after: Mapping[str, Any]
    effects: tuple[Effect, ...] = ()


@dataclass(frozen=True)
class Decided:
    """Who decided, why and when, with the action's parameters."""

    actor: str
    reason: str
    now: datetime
    params: Mapping[str, Any] = field(default_factory=dict)


def do(target: str, name: str, facts: Mapping[str, Any], row: Any, *changes: Change | None,
       note: str | None = None) -> TargetPlan:  # fmt: skip
    """The plan of an eligible target. Changes that are None are left out."""
    item = Item(target, name, tuple(change for change in changes if change is not None), note)
    return TargetPlan(target, facts, item=item, row=row)


def leave(
    target: str, name: str | None, facts: Mapping[str, Any], code: str, says: str
) -> TargetPlan:
    """The plan of a target that is skipped."""
    return TargetPlan(target, facts, skip=Skip(target, name, code, says))


def illegal(
    action: Action, target: str, name: str, facts: Mapping[str, Any], state: str
) -> TargetPlan:
    """The plan of a target whose state forbids the action."""
    sentence = f"cannot {action.on(target.replace('/', ' ', 1))}: it is {state}"
    return leave(target, name, facts, "illegal", sentence)


def moment_in_words(value: datetime | None) -> str | None:
    """A time for people, to the second."""
    return None if value is None else words.moment(value)


def exact(value: datetime | None) -> str | None:
    """A time for comparison, to the microsecond."""
    return None if value is None else value.astimezone(UTC).isoformat()
