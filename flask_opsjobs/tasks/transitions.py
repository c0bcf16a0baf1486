"""Folds what statements appended about tasks into their minutes and hours, for the roll_up loop.

Each appended row is added once: it is removed in the transaction that adds it, however late it was committed.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, NamedTuple

from ..core import sql
from ..core.db import Connection
from ..overview.pace_queries import BOUNDS

# So many appended rows a pass. Each holds what one statement ended of a task, up to some hundred jobs.
MOST_ENDS = 10_000


class _Ended(NamedTuple):
    """Jobs of a task that ended in one minute: how many in a state, or how many waited and ran so long."""

    task: str
    minute: datetime
    state: str | None
    number: int
    rows: int
    peak_kb: int | None
    wait: int | None
    run: int | None
    wait_seconds: float
    run_seconds: float
    longest_wait: float | None
    longest_run: float | None


@dataclass
class _Sum:
    """What is added to a minute or an hour of a task."""

    enqueued: int = 0
    finished: int = 0
    failed: int = 0
    canceled: int = 0
    waits: list[int] = field(default_factory=list)
    runs: list[int] = field(default_factory=list)
    wait_seconds: float = 0.0
    run_seconds: float = 0.0
    longest_wait: float | None = None
    longest_run: float | None = None
    peak_kb: int | None = None

    def add(self, ended: _Ended) -> None:
        if ended.state is not None:
            setattr(self, ended.state, getattr(self, ended.state) + ended.number)
        for histogram, bucket in ((self.waits, ended.wait), (self.runs, ended.run)):
            if bucket is not None:
                histogram.extend([0] * (bucket + 1 - len(histogram)))
                histogram[bucket] += ended.number
        self.wait_seconds += ended.wait_seconds
        self.run_seconds += ended.run_seconds
        self.longest_wait = _larger(self.longest_wait, ended.longest_wait)
        self.longest_run = _larger(self.longest_run, ended.longest_run)
        self.peak_kb = _larger(self.peak_kb, ended.peak_kb)


def fold_tasks(
    connection: Connection, enqueued: Mapping[tuple[str, datetime], int], limit: int = MOST_ENDS
) -> int:
    """Add the enqueued jobs, by task and minute, and at most `limit` appended ends; return how many ends.

    Only one process may do so at a time. The caller commits.
    """
    parameters = {"limit": limit, "bounds": list(BOUNDS)}
    rows = connection.execute(sql.load("fold_task_ends"), parameters).fetchall()
    ended = [_Ended(*row) for row in rows]
    minutes: dict[tuple[str, datetime], _Sum] = defaultdict(_Sum)
    hours: dict[tuple[str, datetime], _Sum] = defaultdict(_Sum)
    for (task, minute), number in enqueued.items():
        minutes[task, minute].enqueued += number
        hours[task, _hour_of(minute)].enqueued += number
    for row in ended:
        minutes[row.task, row.minute].add(row)
        hours[row.task, _hour_of(row.minute)].add(row)
    if minutes:
        connection.execute(sql.load("add_task_minutes"), {"rows": _as_json("minute", minutes)})
        connection.execute(sql.load("add_task_hours"), {"rows": _as_json("hour", hours)})
    return sum(row.rows for row in ended)


def _as_json(column: str, sums: Mapping[tuple[str, datetime], _Sum]) -> str:
    """The rows, of which `column` has the begin of the minute or the hour."""
    rows = [{"task": task, column: start, **vars(one)} for (task, start), one in sums.items()]
    return json.dumps(rows, default=str)


def _hour_of(minute: datetime) -> datetime:
    return minute.astimezone(UTC).replace(minute=0)


def _larger(one: Any, other: Any) -> Any:
    return one if other is None or (one is not None and one > other) else other
