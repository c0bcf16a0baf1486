"""Draws the attempts of a job on a time axis."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from ...core.words import span
from ...jobs.history import outcome_of
from ...jobs.rows import AttemptRow, JobInFull

WIDTH = 760.0
_NARROWEST = 6.0
_LABEL = 14.0
_TICKS = 6
_STEPS = (
    *(1, 2, 5, 10, 15, 30),
    *(60 * minutes for minutes in (1, 2, 5, 10, 15, 30)),
    *(3600 * hours for hours in (1, 2, 6, 12)),
    *(86400 * days for days in (1, 2, 5, 10, 30, 100, 1000)),
)


@dataclass(frozen=True)
class Bar:
    """One attempt. `label` is empty where it would overlap the label before."""

    x: float
    width: float
    status: str
    label: str

    @property
    def middle(self) -> float:
        """The x position of its label."""
        return self.x + self.width / 2


@dataclass(frozen=True)
class Timeline:
    """The bars, and the ticks below them as (x, text); time counts from the first attempt's start."""

    bars: Sequence[Bar]
    ticks: Sequence[tuple[float, str]]


def draw_timeline(attempts: Sequence[AttemptRow], job: JobInFull, now: datetime) -> Timeline | None:
    """The drawing of the attempts, which are given newest first; None for fewer than two."""
    if len(attempts) < 2:
        return None
    start = min(attempt.started_at for attempt in attempts)
    end = max(attempt.ended_at or now for attempt in attempts)
    seconds = max(1.0, (end - start).total_seconds())

    def x(moment: datetime) -> float:
        return (moment - start).total_seconds() / seconds * (WIDTH - _NARROWEST)

    return Timeline(list(_bars(attempts, job, now, x)), list(_ticks(seconds)))


def _bars(
    attempts: Sequence[AttemptRow], job: JobInFull, now: datetime, x: Callable[[datetime], float]
) -> Iterator[Bar]:
    labelled = -_LABEL
    for attempt in reversed(attempts):
        left = x(attempt.started_at)
        width = max(_NARROWEST, x(attempt.ended_at or now) - left)
        is_free = left + width / 2 - labelled >= _LABEL
        labelled = left + width / 2 if is_free else labelled
        label = str(attempt.number) if is_free else ""
        yield Bar(round(left, 1), round(width, 1), outcome_of(attempt, job).is_, label)


def _ticks(seconds: float) -> Iterator[tuple[float, str]]:
    step = next((step for step in _STEPS if seconds / step <= _TICKS), _STEPS[-1])
    for number in range(int(seconds // step) + 1):
        words = f"+{span(number * step)}" if number else "start"
        yield round(number * step / seconds * (WIDTH - _NARROWEST), 1), words
