"""Says in words which step holds a run up, what it does, and how a run ended. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol, TypeVar

from ..core.words import agree, counted
from ..core.words import moment as in_words
from .lifecycle import ENDED_BY, HOLDS_UP, NEEDS

# In which state of its members a map is shown, the first that any of them has.
_OF_MEMBERS = ("failed", "retryable", "started", "queued", "available", "scheduled")


class IsReleased(Protocol):
    """The columns of a released step, and of its job, that say what it does."""

    @property
    def state(self) -> str: ...
    @property
    def attempt(self) -> int: ...
    @property
    def max_attempts(self) -> int: ...
    @property
    def due_at(self) -> datetime | None: ...
    @property
    def started_at(self) -> datetime | None: ...
    @property
    def deadline_at(self) -> datetime | None: ...
    @property
    def opened_at(self) -> datetime | None: ...
    @property
    def signals(self) -> Sequence[str] | None: ...


class IsStep(Protocol):
    """The columns that decide which step comes first."""

    @property
    def id(self) -> int: ...
    @property
    def state(self) -> str: ...


Step = TypeVar("Step", bound=IsStep)


@dataclass(frozen=True)
class Released:
    """The same as a value."""

    state: str
    attempt: int
    max_attempts: int
    due_at: datetime | None
    started_at: datetime | None
    deadline_at: datetime | None
    opened_at: datetime | None
    signals: Sequence[str] | None


@dataclass(frozen=True)
class Doing:
    """What a step does, and until or since when: "backs off: attempt 3 of 5", "at", 02:20."""

    says: str
    word: str = ""
    moment: datetime | None = None

    def __str__(self) -> str:
        return f"{self.says} {self.word} {in_words(self.moment)}" if self.moment else self.says


def doing_of(step: IsReleased, now: datetime) -> Doing:
    """What a released step does that has not ended."""
    is_due = step.due_at is None or step.due_at <= now
    match step.state:
        case "retryable" if not is_due:
            says = f"backs off: attempt {step.attempt + 1} of {step.max_attempts}"
            return Doing(says, "at", step.due_at)
        case "deferred" if step.signals:
            signal = f"for the signal {' or '.join(step.signals)}"
            if step.deadline_at:
                return Doing(f"waits {signal}", "until", step.deadline_at)
            return Doing(f"has waited {signal}", "since", step.opened_at)
        case "scheduled" if not is_due:
            return Doing("is scheduled", "for", step.due_at)
        case "queued":
            return Doing("is queued, and waits for a worker")
        case "started":
            return Doing("has been running", "since", step.started_at)
    return Doing("has been due", "since", step.due_at)


def sentence_of(name: str, waiting: str | None, doing: object) -> str:
    """`billing backs off: attempt 3 of 5 at 02:20`, or `notify waits for billing, which backs off: …`."""
    return f"{name} {doing}" if waiting is None else f"{waiting} waits for {name}, which {doing}"


def how_it_ended(ended_by: str | None, step: str | None, canceled: int) -> str:
    """How a run ended, behind the name of the step that ended it: `failed, so 2 steps were canceled`.

    `step` is the state in which that step settled. Without one it is a sentence of its own.
    """
    if ended_by != "step":
        return ENDED_BY[ended_by or ""]
    says = {"failed": "failed", "canceled": "was canceled"}.get(step or "", "did not finish")
    others = canceled - (step == "canceled")
    if not others:
        return says
    return f"{says}, so {counted(others, 'step')} {agree(others, 'was', 'were')} canceled"


def say_needs(reasons: Iterable[str]) -> str:
    """Why several runs need a person, from the reason of each: `1 cannot go on, 2 overdue waits`."""
    numbers = Counter(reasons)
    return ", ".join(_counted_need(why, numbers[why]) for why in NEEDS if numbers[why])


def _counted_need(why: str, number: int) -> str:
    is_noun = why in ("ambiguous", "overdue")
    return counted(number, NEEDS[why]) if is_noun else f"{number:,} {NEEDS[why]}"


def in_order_of_need(steps: Iterable[Step]) -> list[Step]:
    """Released steps, the one that most likely holds its run up first. A sentence about the run names it.

    `list_frontiers.sql` and `list_frontier_of_run.sql` have the same order, by `HOLDS_UP`.
    """
    return sorted(steps, key=lambda step: (HOLDS_UP.index(step.state), step.id))


def state_of_map(state: str, members: Mapping[str, int]) -> str:
    """The state of a map: the one that needs the most attention of those that `members` counts.

    `state` is that of the step itself. It holds for a step without members too.
    """
    return next((each for each in _OF_MEMBERS if members.get(each)), state)
