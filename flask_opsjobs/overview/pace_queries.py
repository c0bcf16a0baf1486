"""Reads the pace of the last hour or day in equal steps: ended jobs, run and waiting times, due jobs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import zip_longest
from typing import Any

from sqlalchemy import bindparam, func, select
from sqlalchemy.orm import Session

from ..core import sql
from ..core.round_trips import start_reading
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
# Enqueued jobs are kept per minute for so long.
ENQUEUED_PER_MINUTE = timedelta(days=2)
# Minutes are counted within this time. If counting is further behind, the loop is not counting.
_MOST_LAG = timedelta(minutes=4)
# What is sampled of jobs that have not ended.
DEPTHS = ("waiting", "due", "started")
# The overview sends many statements. To build one takes longer than to send it, so these are built once.
_POSITION = select(RollupPosition.counted_from, RollupPosition.counted_until)
_ROLLUPS = (
    select(
        Rollup.minute, Rollup.finished, Rollup.failed, Rollup.canceled, Rollup.runs, Rollup.waits
    )
    .where(Rollup.minute >= bindparam("start"), Rollup.minute < bindparam("end"))
    .where(Rollup.queue == "")
    .order_by(Rollup.minute)
)
_DEPTHS = (
    select(
        Depth.minute,
        *(func.sum(getattr(Depth, name)) for name in DEPTHS),
        func.bool_or(Depth.is_capped),
    )
    .where(Depth.minute >= bindparam("start"), Depth.minute < bindparam("end"))
    .group_by(Depth.minute)
    .order_by(Depth.minute)
)


def add_histograms(histograms: Iterable[Sequence[int]]) -> list[int]:
    """The sum of the histograms. Each may be shorter when its last buckets are empty."""
    added = list(histograms)
    if len(added) == 1:
        return list(added[0])
    return [sum(column) for column in zip_longest(*added, fillvalue=0)]


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
    """One step from `start` on. Rates are per minute, of one queue or task per step, durations in seconds.

    None means that nothing was counted or, for a duration, that no job ended. `waiting`, `due` and `started`
    are the largest numbers of such jobs in the step, lower bounds when `is_capped`. `ended` are the finished,
    failed and canceled jobs.
    """

    start: datetime
    enqueued: float | None = None
    ended: float | None = None
    finished: float | None = None
    failed: float | None = None
    canceled: float | None = None
    median: float | None = None
    p95: float | None = None
    wait: float | None = None
    waiting: int | None = None
    due: int | None = None
    started: int | None = None
    is_capped: bool = False


@dataclass(frozen=True)
class Pace:
    """A window in steps, oldest first.

    `before` are the steps of the window that ends where this one begins. A number of jobs in a step, times
    `minutes`, is how many they were. It can be hashed: what is drawn of a pace is kept for the next request.
    """

    window: str
    step: timedelta
    steps: tuple[PaceStep, ...]
    before: tuple[PaceStep, ...] = ()
    minutes: float = 1.0

    def values(self, name: str) -> Sequence[Any]:
        """What each step has under this name."""
        return [getattr(step, name) for step in self.steps]

    def values_before(self, name: str) -> Sequence[Any]:
        """The same of the window before."""
        return [getattr(step, name) for step in self.before]

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


# From which minute on, and up to which one, minutes are counted.
Counted = tuple[datetime | None, datetime | None]


def find_counted(session: Session) -> Counted:
    """The minutes that are counted."""
    position = session.execute(_POSITION).one_or_none()
    return (None, None) if position is None else (position[0], position[1])


def find_pace(session: Session, window: str, now: datetime, counted: Counted | None = None) -> Pace:
    """The pace of `window`, one of `WINDOWS`, up to the last counted minute, and of the window before.

    `counted` is what `find_counted` found, if it was asked already.
    """
    counted = counted or find_counted(session)
    start, end = _place(counted, window, now)
    span, step = WINDOWS[window]
    of_depths = start_reading(session, _depths, start - span, end, step)
    ends = _ends(session, start - span, end, step)
    depths = of_depths.value
    steps = []
    for number in range(2 * span // step):
        at = start - span + number * step
        depth = depths.get(at, {})
        if _is_counted(counted, at, step):
            steps.append(_figures(at, ends[at], step, depth))
        else:
            steps.append(PaceStep(at, **depth))
    few = span // step
    return Pace(window, step, tuple(steps[few:]), tuple(steps[:few]), step / _MINUTE)


def find_queue_pace(
    session: Session, queue: str, window: str, now: datetime, counted: Counted | None = None
) -> Pace:
    """The pace of a queue in the same window, and in the one before. `counted` is as in `find_pace`."""
    counted = counted or find_counted(session)
    start, end = _place(counted, window, now)
    span, step = WINDOWS[window]
    found = defaultdict(list)
    params = {"queue": queue, "start": start - span, "end": end}
    for row in session.connection().exec_driver_sql(sql.load("list_queue_minutes"), params):
        found[_floor(row.minute, step)].append(row)
    steps = []
    for number in range(2 * span // step):
        at = start - span + number * step
        of_queue = _figures_of_queue(at, found[at], is_counted=_is_counted(counted, at, step))
        is_kept = at >= now - ENQUEUED_PER_MINUTE
        steps.append(of_queue if is_kept else replace(of_queue, enqueued=None))
    few = span // step
    return Pace(window, step, tuple(steps[few:]), tuple(steps[:few]))


def _place(counted: Counted, window: str, now: datetime) -> tuple[datetime, datetime]:
    """Where a window begins and ends: at the last counted minute."""
    span, step = WINDOWS[window]
    counted_until = counted[1]
    end = _floor(now, _MINUTE) - _MINUTE
    if counted_until is not None and timedelta() < end - counted_until < _MOST_LAG:
        end = counted_until
    end = _floor(end, step)
    return end - span, end


def _is_counted(counted: Counted, at: datetime, step: timedelta) -> bool:
    first, end = counted
    return first is not None and end is not None and first <= at and at + step <= end


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
) -> dict[datetime, dict[str, Any]]:
    """The samples of all queues together, by step."""
    found = defaultdict(list)
    for minute, *numbers, is_capped in session.execute(_DEPTHS, {"start": start, "end": end}):
        found[_floor(minute, step)].append((*map(int, numbers), is_capped))
    return {
        at: dict(zip((*DEPTHS, "is_capped"), map(max, zip(*rows, strict=True)), strict=True))
        for at, rows in found.items()
    }


def _figures(at: datetime, rows: Sequence[Any], step: timedelta, depth: dict[str, Any]) -> PaceStep:
    minutes = step / _MINUTE
    runs = add_histograms(row.runs for row in rows)
    return PaceStep(
        at,
        finished=sum(row.finished for row in rows) / minutes,
        failed=sum(row.failed for row in rows) / minutes,
        canceled=sum(row.canceled for row in rows) / minutes,
        median=quantile(runs, 0.5),
        p95=quantile(runs, 0.95),
        wait=quantile(add_histograms(row.waits for row in rows), 0.95),
        **depth,
    )


def _figures_of_queue(at: datetime, minutes: Sequence[Any], *, is_counted: bool) -> PaceStep:
    sampled = [row.due for row in minutes if row.due is not None]
    depth: dict[str, Any] = {
        "due": max(sampled, default=None),
        "is_capped": any(row.is_capped for row in minutes),
    }
    if not is_counted:
        return PaceStep(at, **depth)

    def add(name: str) -> int:
        return sum(getattr(row, name) or 0 for row in minutes)

    runs = add_histograms(row.runs or () for row in minutes)
    return PaceStep(
        at,
        enqueued=add("enqueued"),
        ended=add("finished") + add("failed") + add("canceled"),
        finished=add("finished"),
        failed=add("failed"),
        median=quantile(runs, 0.5),
        p95=quantile(runs, 0.95),
        wait=quantile(add_histograms(row.waits or () for row in minutes), 0.95),
        **depth,
    )


def _floor(moment: datetime, step: timedelta) -> datetime:
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    return epoch + (moment - epoch) // step * step
