"""Reads the pace of the last hour or day in equal steps: ended jobs, run and waiting times, due jobs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import zip_longest
from typing import Any

from sqlalchemy import bindparam, func, select
from sqlalchemy.orm import Session

from ..core import sql
from .models import Depth, Rollup, RollupPosition

# In seconds: 1, 2, 4 ms … The first bucket is below 1 ms; the last begins at 2^30 ms (twelve days) and has no
# end.
BOUNDS: tuple[float, ...] = tuple((1 << power) / 1000 for power in range(31))
_MINUTE = timedelta(minutes=1)
# The length of each window, and of its steps.
WINDOWS = {
    "hour": (timedelta(hours=1), _MINUTE),
    "day": (timedelta(days=1), timedelta(minutes=15)),
}
# Minutes are counted within this time. If counting is further behind, the loop is not counting.
_MOST_LAG = timedelta(minutes=4)
# Built once, as in jobs/queries.py.
_POSITION = select(RollupPosition.counted_from, RollupPosition.counted_until)
_ROLLUPS = (
    select(Rollup.minute, Rollup.finished, Rollup.failed, Rollup.runs, Rollup.waits)
    .where(Rollup.minute >= bindparam("start"), Rollup.minute < bindparam("end"))
    .where(Rollup.queue == "")
    .order_by(Rollup.minute)
)
_DEPTHS = (
    select(Depth.minute, func.sum(Depth.due), func.bool_or(Depth.is_capped))
    .where(Depth.minute >= bindparam("start"), Depth.minute < bindparam("end"))
    .group_by(Depth.minute)
    .order_by(Depth.minute)
)


def add_histograms(histograms: Iterable[Sequence[int]]) -> list[int]:
    """The sum of the histograms. Each may be shorter when its last buckets are empty."""
    return [sum(column) for column in zip_longest(*histograms, fillvalue=0)]


def quantile(histogram: Sequence[int], share: float) -> float | None:
    """The duration in seconds below which `share` of all durations lie; None when the histogram is empty.

    It is exact to its bucket, a factor of two. Inside a bucket the durations are taken as evenly spread.
    """
    left = sum(histogram) * share
    for bucket, number in enumerate(histogram):
        if number and left <= number:
            low = BOUNDS[bucket - 1] if bucket else 0.0
            high = BOUNDS[min(bucket, len(BOUNDS) - 1)]
            return low + (high - low) * left / number
        left -= number
    return None


@dataclass(frozen=True)
class PaceStep:
    """One step from `start` on. Rates are per minute, durations in seconds.

    None means that nothing was counted or, for a duration, that no job ended. `due` is the largest number of
    due jobs in the step, a lower bound when `is_capped`.
    """

    start: datetime
    finished: float | None = None
    failed: float | None = None
    median: float | None = None
    p95: float | None = None
    wait: float | None = None
    due: int | None = None
    is_capped: bool = False


@dataclass(frozen=True)
class Pace:
    """A window in steps, oldest first. `counted_until` is None when nothing was ever counted."""

    window: str
    step: timedelta
    steps: Sequence[PaceStep]
    counted_until: datetime | None

    @property
    def is_empty(self) -> bool:
        """Whether nothing was counted in the window."""
        return all(step.finished is None and step.due is None for step in self.steps)

    @property
    def ends_a_minute(self) -> float | None:
        """How many jobs ended per minute in about the last ten minutes; None when nothing was counted."""
        few = max(1, timedelta(minutes=10) // self.step)
        known = [
            step.finished + (step.failed or 0)
            for step in self.steps[-few:]
            if step.finished is not None
        ]
        return sum(known) / len(known) if known else None


def find_pace(session: Session, window: str, now: datetime) -> Pace:
    """The pace of `window`, one of `WINDOWS`, up to the last counted minute."""
    span, step = WINDOWS[window]
    position = session.execute(_POSITION).one_or_none()
    counted_from, counted_until = position if position is not None else (None, None)
    end = _floor(now, _MINUTE) - _MINUTE
    if counted_until is not None and timedelta() < end - counted_until < _MOST_LAG:
        end = counted_until
    end = _floor(end, step)
    start = end - span
    ends, depths = _ends(session, start, end, step), _depths(session, start, end, step)
    steps = []
    for number in range(span // step):
        at = start + number * step
        due, is_capped = depths.get(at, (None, False))
        if counted_from and counted_until and counted_from <= at and at + step <= counted_until:
            steps.append(_figures(at, ends[at], step, due, is_capped))
        else:
            steps.append(PaceStep(at, due=due, is_capped=is_capped))
    return Pace(window, step, steps, counted_until)


@dataclass(frozen=True)
class QueueHour:
    """An hour of a queue. `most_due` is the most jobs that were due at once; None when nobody looked."""

    hour: datetime
    enqueued: int
    finished: int
    failed: int
    canceled: int
    most_due: int | None


def list_queue_hours(
    session: Session, queue: str, since: datetime, until: datetime
) -> Sequence[QueueHour]:
    """The hours of a queue in which something was counted, at most 50, the newest first."""
    params = {"queue": queue, "since": since, "until": until}
    rows = session.connection().exec_driver_sql(sql.load("list_queue_hours"), params)
    return [QueueHour(*row) for row in rows]


def find_counted_until(session: Session) -> datetime | None:
    """The time until which minutes are counted; None when none ever was."""
    return session.scalars(select(RollupPosition.counted_until)).one_or_none()


def _ends(session: Session, start: datetime, end: datetime, step: timedelta) -> Any:
    """The rollups of all queues together, by step."""
    found = defaultdict(list)
    for row in session.execute(_ROLLUPS, {"start": start, "end": end}):
        found[_floor(row.minute, step)].append(row)
    return found


def _depths(
    session: Session, start: datetime, end: datetime, step: timedelta
) -> dict[datetime, tuple[int, bool]]:
    found: dict[datetime, tuple[int, bool]] = {}
    for minute, due, is_capped in session.execute(_DEPTHS, {"start": start, "end": end}):
        at = _floor(minute, step)
        found[at] = max(found.get(at, (0, False)), (int(due), is_capped))
    return found


def _figures(
    at: datetime, rows: Sequence[Any], step: timedelta, due: int | None, is_capped: bool
) -> PaceStep:
    minutes = step / _MINUTE
    runs = add_histograms(row.runs for row in rows)
    return PaceStep(
        at,
        finished=sum(row.finished for row in rows) / minutes,
        failed=sum(row.failed for row in rows) / minutes,
        median=quantile(runs, 0.5),
        p95=quantile(runs, 0.95),
        wait=quantile(add_histograms(row.waits for row in rows), 0.5),
        due=due,
        is_capped=is_capped,
    )


def _floor(moment: datetime, step: timedelta) -> datetime:
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    return epoch + (moment - epoch) // step * step
