"""Tells which jobs ran, or run, much longer than others of their task."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from math import inf
from typing import Protocol

from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from ..overview.pace_queries import BOUNDS, add_histograms, quantile
from .models import TaskHour
from .queries import DAY

# So many times the 95th percentile of the last day is long; of fewer runs there is no percentile.
TIMES = 5
_FEWEST = 20


def find_limits(
    session: Session, tasks: Collection[str] | Select[str], now: datetime
) -> Mapping[str, float]:
    """The seconds above which a run of each of these tasks is long; a task with few runs is left out.

    `tasks` are names, or what finds them.
    """
    found: dict[str, list[Sequence[int]]] = defaultdict(list)
    if isinstance(tasks, Select) or tasks:
        hours = select(TaskHour.task, TaskHour.runs).where(TaskHour.hour > now - DAY)
        for task, runs in session.execute(hours.where(TaskHour.task.in_(tasks))):
            found[task].append(runs)
    limits = {task: outlier_limit(add_histograms(runs)) for task, runs in found.items()}
    return {task: limit for task, limit in limits.items() if limit is not None}


def outlier_limit(runs: Sequence[int]) -> float | None:
    """The seconds above which a run is long beside those of a histogram; None for fewer than 20 runs."""
    p95 = quantile(runs, 0.95)
    return None if p95 is None or sum(runs) < _FEWEST else TIMES * p95


def count_long(runs: Sequence[int]) -> int:
    """How many runs of a histogram are long beside the others, at least."""
    limit = outlier_limit(runs)
    if limit is None:
        return 0
    return sum(number for low, number in zip((0.0, *BOUNDS), runs, strict=False) if low >= limit)


class Run(Protocol):
    """What tells of a job how long it ran, or runs."""

    @property
    def id(self) -> int: ...
    @property
    def task(self) -> str: ...
    @property
    def state(self) -> str: ...
    @property
    def started_at(self) -> datetime | None: ...
    @property
    def ended_at(self) -> datetime | None: ...
    @property
    def ended_by(self) -> str | None: ...


def find_long(session: Session, jobs: Sequence[Run], now: datetime) -> Collection[int]:
    """The ids of those of these jobs that run, or ran to their end, longer than the limit of their task."""
    return keep_long(jobs, find_limits(session, {job.task for job in jobs if _ran(job)}, now), now)


def keep_long(jobs: Sequence[Run], limits: Mapping[str, float], now: datetime) -> Collection[int]:
    """The same, by the limits of their tasks."""
    ran = [job for job in jobs if _ran(job)]
    return {job.id for job in ran if _seconds(job, now) > limits.get(job.task, inf)}


def _ran(job: Run) -> bool:
    return job.started_at is not None and (
        job.state == "started" or job.ended_by in ("returned", "exhausted")
    )


def _seconds(job: Run, now: datetime) -> float:
    assert job.started_at is not None
    return ((job.ended_at or now) - job.started_at).total_seconds()
