"""Counts jobs per task one by one, to compare with the numbers that the loop folded."""

from __future__ import annotations

from bisect import bisect
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from flask_opsjobs.jobs.lifecycle import MANAGED_FINAL
from flask_opsjobs.overview.pace_queries import BOUNDS, add_histograms

Query = Callable[[str], Sequence[Sequence[Any]]]


@dataclass
class Numbers:
    """What was counted of a task. `waits` and `runs` are histograms without empty last buckets."""

    enqueued: int = 0
    finished: int = 0
    failed: int = 0
    canceled: int = 0
    waits: list[int] = field(default_factory=list)
    runs: list[int] = field(default_factory=list)

    @property
    def ended(self) -> int:
        return self.finished + self.failed + self.canceled


def folded(query: Query, table: str = "task_hours") -> dict[str, Numbers]:
    """What the minutes or hours of each task say in all."""
    found: dict[str, Numbers] = defaultdict(Numbers)
    columns = "task, enqueued, finished, failed, canceled, waits, runs"
    for task, *counts, waits, runs in query(f"SELECT {columns} FROM opsjobs.{table}"):
        one = found[task]
        for name, number in zip(("enqueued", *MANAGED_FINAL), counts, strict=True):
            setattr(one, name, getattr(one, name) + number)
        one.waits, one.runs = _add(one.waits, waits), _add(one.runs, runs)
    return dict(found)


def slow_count(query: Query) -> dict[str, Numbers]:
    """The same from managed jobs that ended once at most, none of which is deleted."""
    found: dict[str, Numbers] = defaultdict(Numbers)
    columns = "task, state, ended_by, due_at, started_at, ended_at"
    jobs = query(f"SELECT {columns} FROM opsjobs.jobs WHERE origin = 'opsjobs'")
    for task, state, ended_by, due_at, started_at, ended_at in jobs:
        one = found[task]
        one.enqueued += 1
        if state in MANAGED_FINAL:
            setattr(one, state, getattr(one, state) + 1)
        if ended_by in ("returned", "exhausted") and started_at is not None:
            one.waits = _add(one.waits, _bucket_of(due_at, started_at))
            one.runs = _add(one.runs, _bucket_of(started_at, ended_at))
    return dict(found)


def _bucket_of(start: datetime, end: datetime) -> list[int]:
    return [0] * bisect(BOUNDS, max(0.0, (end - start).total_seconds())) + [1]


def _add(one: Sequence[int], other: Sequence[int]) -> list[int]:
    both = add_histograms([one, other])
    while both and not both[-1]:
        both.pop()
    return both
