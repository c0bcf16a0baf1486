"""Runs the roll_up loop: it counts jobs per minute and samples queue depths, so that no page counts rows."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from ..core import sql
from ..core.words import counted
from ..failures.count import MOST, count_failures, infer_deploy_deaths
from ..jobs.lifecycle import FINAL, MANAGED_FINAL, STATES
from ..lifeline.retention import NUMBER_DAYS
from ..overview.pace_queries import BOUNDS
from .loop import IDLE, Loop, Pass, every

_MINUTE = timedelta(minutes=1)
# A minute is counted one minute after it is over. By then the ends with a time in that minute are committed.
_LAG = _MINUTE
# The first pass begins this far back. One pass counts at most so many minutes, even after days of sleep.
_FIRST = timedelta(days=1)
_MOST_MINUTES = 15
_MOST_COUNTER_ROWS = 50_000
_MOST_OLD = 10_000
_COUNTS_PER_MINUTE = timedelta(days=2)
_DEPTH_CAP = 100_000
_ALL_QUEUES = ""


def run(context: Pass) -> str:
    """Fold the counter rows of jobs and limiters, sample depths, count minutes, failures and deaths."""
    folded = _fold_job_counts(context) + _fold_limits(context)
    _sample_depths(context)
    ended = _count_minutes(context)
    infer_deploy_deaths(context.connection, context.now)
    failed = _count_failures(context)
    report = [f"counted {counted(ended, 'end')}"] if ended else []
    report += [f"counted {counted(failed, 'failed attempt')}"] if failed else []
    report += [f"folded {counted(folded, 'counter row')}"] if folded else []
    return ", ".join(report) or IDLE


def _fold_job_counts(context: Pass) -> int:
    connection = context.connection
    row = connection.execute(sql.load("fold_job_counts"), {"limit": _MOST_COUNTER_ROWS}).fetchone()
    folded: int = row[0] if row else 0
    old = {"before": context.now - _COUNTS_PER_MINUTE, "limit": _MOST_OLD}
    connection.execute(sql.load("fold_old_enqueue_counts"), old)
    if folded >= _MOST_COUNTER_ROWS:
        context.again()
    return folded


def _fold_limits(context: Pass) -> int:
    row = context.connection.execute(
        sql.load("fold_limit_counts"), {"limit": _MOST_COUNTER_ROWS}
    ).fetchone()
    folded: int = row[0] if row else 0
    if folded >= _MOST_COUNTER_ROWS:
        context.again()
    return folded


def _count_failures(context: Pass) -> int:
    failed = count_failures(context.connection, context.host, context.now)
    if failed >= MOST:
        context.again()
    return failed


def _sample_depths(context: Pass) -> None:
    minute = _floor(context.now)
    if context.memory.get("sampled") == minute:
        return
    live = [state for state in STATES if state not in FINAL]
    parameters = {
        "minute": minute,
        "states": live,
        "most": _DEPTH_CAP,
        "queues": context.queue_names(),
    }
    context.connection.execute(sql.load("sample_depths"), parameters)
    context.memory["sampled"] = minute


def _count_minutes(context: Pass) -> int:
    """Count finished minutes; return how many jobs ended in them.

    Each minute is counted exactly once: the position is locked, and advanced in the same transaction as the
    counts.
    """
    connection = context.connection
    last = _floor(context.now) - _LAG
    position = connection.execute(sql.load("lock_rollup_position")).fetchone()
    first, start = position if position and position[1] else (None, _begin(context, last))
    start = max(start, last - timedelta(days=NUMBER_DAYS))
    end = min(last, start + _MOST_MINUTES * _MINUTE)
    if first and start >= end:
        return 0
    parameters = {"start": start, "end": end, "states": list(MANAGED_FINAL), "bounds": list(BOUNDS)}
    ended = connection.execute(sql.load("count_ended_jobs"), parameters).fetchall()
    sums = _sum(row[:-1] for row in ended)
    rows = [sum_.row(*key) for key, sum_ in sums.items()]
    connection.execute(sql.load("write_rollups"), {"rows": json.dumps(rows, default=str)})
    quarters = json.dumps(_sum_quarters(ended), default=str)
    connection.execute(sql.load("add_task_ends"), {"rows": quarters})
    connection.execute(sql.load("move_rollup_position"), {"start": first or start, "end": end})
    if end < last:
        context.again()
    return sum(sum(sum_.ends.values()) for (_, queue), sum_ in sums.items() if queue == _ALL_QUEUES)


def _begin(context: Pass, last: datetime) -> datetime:
    """Return the minute at which the very first pass begins: the first stored end of the last day."""
    parameters = {"states": list(MANAGED_FINAL)}
    row = context.connection.execute(sql.load("find_first_end"), parameters).fetchone()
    return last if not row or row[0] is None else min(last, max(_floor(row[0]), last - _FIRST))


@dataclass
class _Sum:
    """The jobs that ended in one minute and queue. An end that nobody saw has no minute."""

    ends: dict[str, int] = field(default_factory=lambda: dict.fromkeys(MANAGED_FINAL, 0))
    waits: list[int] = field(default_factory=list)
    runs: list[int] = field(default_factory=list)

    def add(self, state: str, wait: int | None, run: int | None, number: int) -> None:
        self.ends[state] += number
        for histogram, bucket in ((self.waits, wait), (self.runs, run)):
            if bucket is not None:
                histogram.extend([0] * (bucket + 1 - len(histogram)))
                histogram[bucket] += number

    def row(self, minute: datetime, queue: str) -> dict[str, Any]:
        histograms = {"waits": self.waits, "runs": self.runs}
        return {"minute": minute, "queue": queue, **self.ends, **histograms}


def _sum(rows: Iterable[Any]) -> dict[tuple[datetime, str], _Sum]:
    sums: dict[tuple[datetime, str], _Sum] = defaultdict(_Sum)
    for minute, queue, *numbers in rows:
        sums[minute, queue].add(*numbers)
        sums[minute, _ALL_QUEUES].add(*numbers)
    return sums


def _sum_quarters(rows: Iterable[Any]) -> list[dict[str, Any]]:
    """The jobs of each task that finished and failed in each quarter of an hour."""
    sums: dict[tuple[str, datetime], dict[str, int]] = {}
    for minute, _queue, state, _wait, _run, number, task in rows:
        if state in ("finished", "failed"):
            quarter = minute.replace(minute=minute.minute - minute.minute % 15)
            of = sums.setdefault((task, quarter), {"finished": 0, "failed": 0})
            of[state] += number
    return [{"task": task, "quarter": at, **numbers} for (task, at), numbers in sums.items()]


def _floor(moment: datetime) -> datetime:
    return moment.replace(second=0, microsecond=0)


LOOP = Loop("roll_up", every(10), run, is_alone=True)
