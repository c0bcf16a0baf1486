"""Lists tasks with their numbers beside the same hours before, in any order; the worst change is first."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy.orm import Session

from ..core.round_trips import start_reading
from ..failures.queries import floor
from .change import TaskChange, find_change
from .queries import (
    DAY,
    HOUR,
    MOST_TASKS,
    TaskNumbers,
    add_numbers,
    list_numbers,
    list_numbers_by_hour,
)

# What is compared, and how many days before.
AGAINST = {"yesterday": 1, "week": 7}
_SAYS = {"yesterday": "yesterday", "week": "a week before"}
# The last two hours are recent: what fails now is not hidden by the hours before.
_RECENT = 2 * HOUR


@dataclass(frozen=True)
class Hours:
    """The full hours that are shown, and those that they are compared with, which say when in `then`.

    The last hour is the current one, so its numbers still grow.
    """

    start: datetime
    end: datetime
    shift: timedelta
    then: str

    @classmethod
    def until(cls, now: datetime, span: timedelta, against: str) -> Hours:
        """The hours of the last `span`, and those one or seven days before, or as many days as `span` has."""
        end = floor(now, HOUR) + HOUR
        hours = max(HOUR, -(-span // HOUR) * HOUR)
        days = max(AGAINST[against], -(-hours // DAY))
        then = _SAYS[against] if days == AGAINST[against] else f"{days} days before"
        return cls(end - hours, end, days * DAY, then)


@dataclass(frozen=True)
class TaskRow:
    """A task with its numbers, those of the hours that it is compared with, and its worst change."""

    now: TaskNumbers
    before: TaskNumbers | None
    change: TaskChange

    @property
    def task(self) -> str:
        """Its name."""
        return self.now.task


# What a row has in each column by which tasks can be ordered.
KEYS: Mapping[str, Callable[[TaskRow], Any]] = {
    "change": lambda row: row.change.rank,
    "task": lambda row: row.task,
    "enqueued": lambda row: row.now.enqueued,
    "ended": lambda row: row.now.ended,
    "failed": lambda row: row.now.failed_share,
    "median": lambda row: row.now.median,
    "p95": lambda row: row.now.p95,
    "longest": lambda row: row.now.longest_run,
    "wait": lambda row: row.now.wait,
    "memory": lambda row: row.now.peak_kb,
}


def rank_tasks(
    session: Session, hours: Hours, column: str = "change", *, is_descending: bool = True
) -> tuple[Sequence[TaskRow], bool]:
    """All tasks of which a job was enqueued or ended in these hours, or in those before, by a column.

    The columns are those of `KEYS`. Equal ones are ordered by jobs, then by name. What is not known comes
    last. At most the first `MOST_TASKS` by name, and whether there are more.
    """
    shifted = hours.start - hours.shift, hours.end - hours.shift
    of_before = start_reading(session, list_numbers, *shifted)
    of_recent = start_reading(session, list_numbers, hours.end - _RECENT, hours.end)
    now = list_numbers(session, hours.start, hours.end)
    before, recent = of_before.value, of_recent.value
    names = sorted({*now, *before})
    rows = [
        _row(now.get(task, TaskNumbers(task)), before.get(task), recent.get(task), hours)
        for task in names[:MOST_TASKS]
    ]
    rows.sort(key=lambda row: (-row.now.ended, row.task))
    value = KEYS[column]
    known = sorted(
        (row for row in rows if value(row) is not None), key=value, reverse=is_descending
    )
    in_order = [*known, *(row for row in rows if value(row) is None)]
    return in_order, len(names) > MOST_TASKS


def find_row(session: Session, task: str, hours: Hours) -> TaskRow:
    """One task with its numbers in these hours."""
    found = list_numbers_by_hour(session, task, hours.start - hours.shift, hours.end)

    def add(start: datetime, end: datetime) -> TaskNumbers:
        return add_numbers(task, [one for at, one in found.items() if start <= at < end])

    now = add(hours.start, hours.end)
    recent = add(hours.end - _RECENT, hours.end)
    before = add(hours.start - hours.shift, hours.end - hours.shift)
    return _row(now, before if before.enqueued or before.ended else None, recent, hours)


def _row(
    now: TaskNumbers, before: TaskNumbers | None, recent: TaskNumbers | None, hours: Hours
) -> TaskRow:
    return TaskRow(now, before, find_change(now, before, recent, hours.then))
