"""Sums up a simulation as the numbers that the command and the page show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .simulation import Simulated


@dataclass(frozen=True)
class TrialOutcome:
    """The result of a trial, in seconds from its beginning or of waiting; None where no job starts.

    `never` counts the jobs that are too heavy to start. `half` is the time when half of the others have
    started.
    `blocked` holds, by code, how long the first waiting job was blocked, the longest time first.
    """

    starts: Sequence[float]
    never: int
    first: float | None
    half: float | None
    last: float | None
    ended: float
    most_at_once: int
    wait_median: float | None
    wait_p95: float | None
    wait_most: float | None
    blocked: Sequence[tuple[str, float]]

    @property
    def started(self) -> int:
        """The number of jobs that start."""
        return len(self.starts)


def make_outcome(found: Simulated) -> TrialOutcome:
    """The numbers of a simulation."""
    starts, waits = sorted(found.starts), sorted(found.waits)
    return TrialOutcome(
        starts=starts,
        never=found.never,
        first=starts[0] if starts else None,
        half=_percentile(starts, 50),
        last=starts[-1] if starts else None,
        ended=found.ended,
        most_at_once=found.most_at_once,
        wait_median=_percentile(waits, 50),
        wait_p95=_percentile(waits, 95),
        wait_most=_percentile(waits, 100),
        blocked=sorted(found.blocked.items(), key=lambda pair: -pair[1]),
    )


def _percentile(values: Sequence[float], percent: int) -> float | None:
    """The smallest of the sorted values that `percent` of them do not exceed; None without values."""
    return values[-(-len(values) * percent // 100) - 1] if values else None
