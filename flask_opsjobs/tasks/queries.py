"""Reads the numbers of tasks: of a span of hours, beside the same hours before, and step by step."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import BigInteger, Double, Interval, Select, bindparam, cast, func, select
from sqlalchemy.dialects.postgresql import array
from sqlalchemy.orm import Session

from ..core import sql
from ..jobs.models import Job
from ..jobs.search.filter import JobFilter
from ..jobs.search.index_scan import Range, scan_index
from ..overview.pace_queries import BOUNDS, add_histograms, quantile
from ..workflows.models import WorkflowRecord
from .models import TaskHour, TaskMinute, TaskPause

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
# So many tasks are compared at most, the first by name. That there are more is said.
MOST_TASKS = 5_000
# Hours are kept one by one for so long.
MOST_HOURS = timedelta(days=60)
# So many of the newest jobs of a task tell what has not ended, and in which workflows they are.
MOST_LOOKED_AT = 1_000
MOST_PAUSED = 50
MOST_WORKFLOWS = 10


@dataclass(frozen=True)
class PausedTask:
    """A task that an operator paused."""

    task: str
    paused_at: datetime
    paused_by: str
    paused_reason: str


@dataclass(frozen=True)
class TaskNumbers:
    """What happened to jobs of a task in a span of time. `waits` and `runs` are histograms.

    `longest_run` is in seconds. `peak_kb` is None while no process told the memory that it used.
    """

    task: str
    enqueued: int = 0
    finished: int = 0
    failed: int = 0
    canceled: int = 0
    waits: Sequence[int] = ()
    runs: Sequence[int] = ()
    longest_run: float | None = None
    peak_kb: int | None = None

    @property
    def ended(self) -> int:
        """How many jobs ended."""
        return self.finished + self.failed + self.canceled

    @property
    def failed_share(self) -> float | None:
        """Which part of the jobs that finished or failed did fail; None when there were none."""
        judged = self.finished + self.failed
        return self.failed / judged if judged else None

    @property
    def median(self) -> float | None:
        """The median run time in seconds, right to within a factor of two; None without runs."""
        return self._run_of(0.5)

    @property
    def p95(self) -> float | None:
        """The run time in seconds that 95 of 100 runs did not exceed, as exact as the median."""
        return self._run_of(0.95)

    @property
    def wait(self) -> float | None:
        """The wait in seconds, from due to started, that 95 of 100 jobs did not exceed."""
        return quantile(self.waits, 0.95)

    def _run_of(self, share: float) -> float | None:
        value = quantile(self.runs, share)
        # It is never above the longest run, which is known exactly.
        return value if value is None or self.longest_run is None else min(value, self.longest_run)


@dataclass(frozen=True)
class NewestJobs:
    """How many of the newest jobs of a task have not ended, and of which workflows they are steps, by name.

    `stopped_at` is how many were looked at, when it may have older ones.
    """

    live: int
    workflows: Sequence[str]
    stopped_at: int | None = None


@dataclass(frozen=True)
class TaskStep:
    """A step of a chart: what ended in it. Durations are in seconds; None when nothing ended."""

    start: datetime
    ended: int
    finished: int
    failed: int
    median: float | None
    p95: float | None
    wait: float | None


def list_numbers(session: Session, start: datetime, end: datetime) -> Mapping[str, TaskNumbers]:
    """The numbers of all tasks from one full hour until before another, by name, at most `MOST_TASKS` + 1."""
    params = {"start": start, "end": end, "limit": MOST_TASKS + 1}
    rows = session.connection().exec_driver_sql(sql.load("sum_hours_of_tasks"), params)
    return {row[0]: TaskNumbers(*row) for row in rows}


def list_task_hours(
    session: Session, tasks: Collection[str], start: datetime, end: datetime
) -> Mapping[str, Mapping[datetime, tuple[int, int]]]:
    """How many jobs of these tasks ended in each hour from `start` until before `end`, and how many failed.

    Without empty hours.
    """
    ended = TaskHour.finished + TaskHour.failed + TaskHour.canceled
    hours = select(TaskHour.task, TaskHour.hour, ended, TaskHour.failed).where(
        TaskHour.task.in_(tasks), TaskHour.hour >= start, TaskHour.hour < end
    )
    found: dict[str, dict[datetime, tuple[int, int]]] = {task: {} for task in tasks}
    for task, at, number, failed in session.execute(hours):
        found[task][at.astimezone(UTC)] = number, failed
    return found


def list_task_steps(
    session: Session, task: str, start: datetime, end: datetime, step: timedelta
) -> Mapping[datetime, TaskStep]:
    """The steps of a task from `start` until before `end`, without empty ones.

    From minutes for steps below an hour, which are kept for three days, else from hours.
    """
    sums = _SUMS_OF_MINUTES if step < HOUR else _SUMS_OF_HOURS
    rows = session.execute(sums, {"task": task, "start": start, "end": end, "step": step})
    return {row[0].astimezone(UTC): _step(*row) for row in rows}


def list_numbers_by_hour(
    session: Session, task: str, start: datetime, end: datetime
) -> Mapping[datetime, TaskNumbers]:
    """The numbers of each hour of one task from `start` until before `end`, without empty hours."""
    rows = session.execute(_HOURS, {"task": task, "start": start, "end": end})
    # In UTC: where clocks are set back, two hours of the session's time zone are equal.
    return {row[0].astimezone(UTC): TaskNumbers(*row[1:]) for row in rows}


def add_numbers(task: str, numbers: Collection[TaskNumbers]) -> TaskNumbers:
    """The sum of these numbers of one task."""
    return TaskNumbers(
        task,
        enqueued=sum(each.enqueued for each in numbers),
        finished=sum(each.finished for each in numbers),
        failed=sum(each.failed for each in numbers),
        canceled=sum(each.canceled for each in numbers),
        waits=add_histograms(each.waits for each in numbers),
        runs=add_histograms(each.runs for each in numbers),
        longest_run=max((each.longest_run or 0.0 for each in numbers), default=None) or None,
        peak_kb=max((each.peak_kb or 0 for each in numbers), default=None) or None,
    )


def find_begin(session: Session, task: str | None = None) -> datetime | None:
    """The first hour that is kept one by one, of a task or of all; None when nothing is counted yet."""
    hours = select(TaskHour.hour).where(TaskHour.hour > datetime(1970, 1, 1, tzinfo=UTC))
    if task is not None:
        hours = hours.where(TaskHour.task == task)
    return session.scalars(hours.order_by(TaskHour.hour).limit(1)).first()


def list_paused(session: Session, *, before: datetime | None = None) -> Sequence[PausedTask]:
    """The paused tasks, the last paused first, at most `MOST_PAUSED`; or those paused `before` a moment."""
    newest = _select_paused().order_by(TaskPause.paused_at.desc(), TaskPause.task)
    if before is not None:
        newest = newest.where(TaskPause.paused_at < before)
    return _list_paused(session, newest.limit(MOST_PAUSED))


def find_pauses(session: Session, tasks: Collection[str]) -> Mapping[str, PausedTask]:
    """Those of these tasks that are paused, by name."""
    mine = _select_paused().where(TaskPause.task.in_(tasks))
    return {pause.task: pause for pause in _list_paused(session, mine)}


def _select_paused() -> Select[Any]:
    return select(*(getattr(TaskPause, name) for name in PausedTask.__annotations__))


def _list_paused(session: Session, chosen: Select[Any]) -> Sequence[PausedTask]:
    return [PausedTask(*row) for row in session.execute(chosen)]


def look_at_newest(session: Session, task: str) -> NewestJobs:
    """What the newest jobs of a task tell."""
    newest = scan_index(select(Job.ended_at, Job.workflow_id), JobFilter(task=task), Range())
    some = newest.limit(MOST_LOOKED_AT).cte("newest")
    seen = some.prefix_with("MATERIALIZED", dialect="postgresql").c
    ids = select(seen.workflow_id).where(seen.workflow_id.is_not(None))
    named = select(WorkflowRecord.name).where(WorkflowRecord.id.in_(ids)).distinct()
    names = func.array(named.order_by(WorkflowRecord.name).limit(MOST_WORKFLOWS).scalar_subquery())
    not_ended = func.count().filter(seen.ended_at.is_(None))
    number, live, workflows = session.execute(select(func.count(), not_ended, names)).one()
    return NewestJobs(live, workflows, number if number == MOST_LOOKED_AT else None)


def _sum_steps(model: Any, at: Any) -> Select[*tuple[Any, ...]]:
    """Sums up the minutes or the hours of a task by step.

    Each bucket is a sum of its own: to send all histograms, or to make a row of each bucket, takes twice as
    long. As floats, because Postgres adds up bigints as numerics.
    """
    step = func.date_bin(bindparam("step", type_=Interval), at, datetime(1970, 1, 1, tzinfo=UTC))

    def add(histogram: Any) -> Any:
        sums = (func.sum(cast(histogram[number + 1], Double)) for number in range(len(BOUNDS) + 1))
        return array([cast(func.coalesce(each, 0), BigInteger) for each in sums])

    numbers = (model.finished, model.failed, model.canceled)
    counts = (cast(func.sum(each), BigInteger) for each in numbers)
    return (
        select(step, *counts, add(model.waits), add(model.runs))
        .where(model.task == bindparam("task"))
        .where(at >= bindparam("start"), at < bindparam("end"))
        .group_by(step)
    )


# To build one takes longer than to send it.
_HOURS = (
    select(TaskHour.hour, *(getattr(TaskHour, name) for name in TaskNumbers.__annotations__))
    .where(TaskHour.task == bindparam("task"))
    .where(TaskHour.hour >= bindparam("start"), TaskHour.hour < bindparam("end"))
)
_SUMS_OF_MINUTES = _sum_steps(TaskMinute, TaskMinute.minute)
_SUMS_OF_HOURS = _sum_steps(TaskHour, TaskHour.hour)


def _step(
    start: datetime,
    finished: int,
    failed: int,
    canceled: int,
    waits: Sequence[int],
    runs: Sequence[int],
) -> TaskStep:
    return TaskStep(
        start,
        ended=finished + failed + canceled,
        finished=finished,
        failed=failed,
        median=quantile(runs, 0.5),
        p95=quantile(runs, 0.95),
        wait=quantile(waits, 0.95),
    )
