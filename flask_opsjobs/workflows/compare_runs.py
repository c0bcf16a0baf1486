"""Compares two runs step by step: state, duration and attempts. The runs may have different steps. Pure."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property

from ..jobs.lifecycle import FINAL
from .held_up import state_of_map
from .queries import RunRow, StepRow

# A step that took so many times as long in one run, and at least so many seconds longer, is marked.
_TIMES, _SECONDS = 2, 1


@dataclass(frozen=True)
class Side:
    """A step in one of the runs. A map stands for its members, of which `counts` says how many have a state.

    `since` is when a step was released that has not ended; `seconds` are then those until now.
    """

    state: str
    since: datetime | None
    seconds: float | None
    attempts: int | None
    counts: Mapping[str, int]

    def is_much_slower(self, other: Side) -> bool:
        """Whether it took much longer than the step in the other run."""
        if self.seconds is None or other.seconds is None:
            return False
        return self.seconds >= max(_TIMES * other.seconds, other.seconds + _SECONDS)


@dataclass(frozen=True)
class ComparedStep:
    """A step by its name in both runs; None in a run that does not have it."""

    name: str
    one: Side | None
    other: Side | None

    @property
    def slower(self) -> Side | None:
        """The side that took much longer, or takes it so far."""
        if self.one is None or self.other is None:
            return None
        for mine, theirs in ((self.one, self.other), (self.other, self.one)):
            if mine.is_much_slower(theirs):
                return mine
        return None

    @property
    def differs(self) -> bool:
        """Whether it is in one run only, or differs by state, attempts or much by duration."""
        if self.one is None or self.other is None:
            return True
        same = (self.one.state, self.one.attempts) == (self.other.state, self.other.attempts)
        return not same or self.slower is not None

    @property
    def weight(self) -> float:
        """By how many seconds the durations differ."""
        return abs(_seconds(self.one) - _seconds(self.other))


def _seconds(side: Side | None) -> float:
    return 0.0 if side is None else side.seconds or 0.0


@dataclass(frozen=True)
class Comparison:
    """Two runs, and their steps in the order of the graph of `one`, then those of `other` alone."""

    one: RunRow
    other: RunRow
    steps: Sequence[ComparedStep]

    @cached_property
    def differing(self) -> Sequence[ComparedStep]:
        """The steps that differ."""
        return [step for step in self.steps if step.differs]

    @property
    def largest(self) -> Sequence[ComparedStep]:
        """The five steps that differ most by duration, in their order."""
        some = sorted(self.differing, key=lambda step: -step.weight)[:5]
        return [step for step in self.differing if step in some]

    @property
    def only(self) -> tuple[int, int]:
        """How many steps are in the first run only, and in the second."""
        return (
            sum(step.other is None for step in self.steps),
            sum(step.one is None for step in self.steps),
        )


def compare(
    one: RunRow,
    other: RunRow,
    steps: Sequence[StepRow],
    other_steps: Sequence[StepRow],
    now: datetime,
) -> Comparison:
    """Both runs, with the steps of each, step by step."""
    mine, theirs = _sides(steps, now), _sides(other_steps, now)
    names = dict.fromkeys((*mine, *theirs))
    return Comparison(
        one, other, [ComparedStep(name, mine.get(name), theirs.get(name)) for name in names]
    )


def _sides(steps: Sequence[StepRow], now: datetime) -> Mapping[str, Side]:
    """The steps by name; the members of a map are part of it."""
    members: dict[int | None, list[StepRow]] = defaultdict(list)
    for step in steps:
        members[step.map_of].append(step)
    return {step.name: _side(step, members.get(step.id, ()), now) for step in members[None]}


def _side(step: StepRow, members: Sequence[StepRow], now: datetime) -> Side:
    begin, everyone = step.released_at or step.opened_at, (step, *members)
    is_open = begin is not None and any(each.state not in FINAL for each in everyone)
    end = (
        now if is_open else max((each.ended_at for each in everyone if each.ended_at), default=None)
    )
    seconds = (end - begin).total_seconds() if begin and end else None
    counts = Counter(member.state for member in members)
    attempts = None if members else step.attempt or None
    state = state_of_map(step.state, counts)
    return Side(state, begin if is_open else None, seconds, attempts, counts)
