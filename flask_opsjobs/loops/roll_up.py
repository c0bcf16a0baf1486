"""Runs the roll_up loop: it counts jobs per minute and in all, and samples depths, so that no page counts."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from ..core import sql
from ..core.words import counted
from ..failures.count import MOST, count_failures, infer_deploy_deaths
from ..jobs.lifecycle import FINAL, MANAGED_FINAL, STATES
from ..lifeline.retention import NUMBER_DAYS
from ..overview.models import MOST_QUEUE_TOTALS, OTHER_QUEUES
from ..overview.pace_queries import BOUNDS, ENQUEUED_PER_MINUTE, add_histograms
from ..tasks.transitions import MOST_ENDS, fold_tasks
from .loop import IDLE, Loop, Pass, every

_MINUTE = timedelta(minutes=1)
# A minute is counted one minute after it is over. By then the ends with a time in that minute are committed.
_LAG = _MINUTE
# The first pass begins this far back. One pass counts at most so many minutes, even after days of sleep.
_FIRST = timedelta(days=1)
_MOST_MINUTES = 15
_MOST_COUNTER_ROWS = 50_000
_MOST_OLD = 10_000
_DEPTH_CAP = 100_000
_ALL_QUEUES = ""
_MOST_DECISIONS = 50_000


def run(context: Pass) -> str:
    """Fold the counter rows of jobs and limiters, sample depths, count minutes, failures and deaths."""
    folded = _fold_job_counts(context) + _fold_limits(context)
    _sample_depths(context)
    ended = _count_minutes(context)
    _count_decisions(context)
    infer_deploy_deaths(context.connection, context.now)
    failed = _count_failures(context)
    report = [f"counted {counted(ended, 'end')}"] if ended else []
    report += [f"counted {counted(failed, 'failed attempt')}"] if failed else []
    report += [f"folded {counted(folded, 'counter row')}"] if folded else []
    return ", ".join(report) or IDLE


def _fold_job_counts(context: Pass) -> int:
    connection = context.connection
    rows = connection.execute(sql.load("fold_job_counts"), {"limit": _MOST_COUNTER_ROWS}).fetchall()
    totals: dict[str, _Total] = defaultdict(_Total)
    enqueued: dict[tuple[str, datetime], int] = defaultdict(int)
    folded = 0
    for queue, minute, number, counter_rows, task in rows:
        totals[queue].enqueued += number
        folded += counter_rows
        if task is not None:
            enqueued[task, minute] += number
    _add_totals(context, totals)
    old = {"before": context.now - ENQUEUED_PER_MINUTE, "limit": _MOST_OLD}
    connection.execute(sql.load("fold_old_enqueue_counts"), old)
    ends = fold_tasks(connection, enqueued)
    if folded >= _MOST_COUNTER_ROWS or ends >= MOST_ENDS:
        context.again()
    return folded + ends


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
    found = connection.execute(sql.load("count_ended_jobs"), parameters).fetchall()
    ended = [_Ended(*row) for row in found]
    sums = _sum(ended)
    rows = [sum_.row(*key) for key, sum_ in sums.items()]
    connection.execute(sql.load("write_rollups"), {"rows": json.dumps(rows, default=str)})
    quarters = json.dumps(_sum_quarters(ended), default=str)
    connection.execute(sql.load("add_task_ends"), {"rows": quarters})
    _add_totals(context, _sum_totals(ended))
    connection.execute(sql.load("add_slot_totals"), {"start": start, "end": end})
    connection.execute(sql.load("move_rollup_position"), {"start": first or start, "end": end})
    if end < last:
        context.again()
    return sum(sum(sum_.ends.values()) for (_, queue), sum_ in sums.items() if queue == _ALL_QUEUES)


def _begin(context: Pass, last: datetime) -> datetime:
    """Return the minute at which the very first pass begins: the first stored end of the last day."""
    parameters = {"states": list(MANAGED_FINAL)}
    row = context.connection.execute(sql.load("find_first_end"), parameters).fetchone()
    return last if not row or row[0] is None else min(last, max(_floor(row[0]), last - _FIRST))


def _count_decisions(context: Pass) -> None:
    """Add the decisions of the audit that are not counted yet to the totals of actions."""
    row = context.connection.execute(
        sql.load("add_action_totals"), {"limit": _MOST_DECISIONS}
    ).fetchone()
    if row and row[0] >= _MOST_DECISIONS:
        context.again()


class _Ended(NamedTuple):
    """So many jobs of one task that ended in one minute alike. `wait` and `run` are buckets of histograms."""

    minute: datetime
    queue: str
    state: str
    wait: int | None
    run: int | None
    number: int
    task: str
    wait_seconds: float
    run_seconds: float


@dataclass
class _Sum:
    """The jobs that ended in one minute and queue. An end that nobody saw has no minute."""

    ends: dict[str, int] = field(default_factory=lambda: dict.fromkeys(MANAGED_FINAL, 0))
    waits: list[int] = field(default_factory=list)
    runs: list[int] = field(default_factory=list)

    def add(self, ended: _Ended) -> None:
        self.ends[ended.state] += ended.number
        for histogram, bucket in ((self.waits, ended.wait), (self.runs, ended.run)):
            if bucket is not None:
                histogram.extend([0] * (bucket + 1 - len(histogram)))
                histogram[bucket] += ended.number

    def row(self, minute: datetime, queue: str) -> dict[str, Any]:
        histograms = {"waits": self.waits, "runs": self.runs}
        return {"minute": minute, "queue": queue, **self.ends, **histograms}


def _sum(rows: Iterable[_Ended]) -> dict[tuple[datetime, str], _Sum]:
    sums: dict[tuple[datetime, str], _Sum] = defaultdict(_Sum)
    for row in rows:
        sums[row.minute, row.queue].add(row)
        sums[row.minute, _ALL_QUEUES].add(row)
    return sums


def _sum_quarters(rows: Iterable[_Ended]) -> list[dict[str, Any]]:
    """The jobs of each task that finished and failed in each quarter of an hour."""
    sums: dict[tuple[str, datetime], dict[str, int]] = {}
    for row in rows:
        if row.state in ("finished", "failed"):
            quarter = row.minute.replace(minute=row.minute.minute - row.minute.minute % 15)
            of = sums.setdefault((row.task, quarter), {"finished": 0, "failed": 0})
            of[row.state] += row.number
    return [{"task": task, "quarter": at, **numbers} for (task, at), numbers in sums.items()]


@dataclass
class _Total(_Sum):
    """What is added to the totals of a queue."""

    enqueued: int = 0
    wait_seconds: float = 0.0
    run_seconds: float = 0.0

    def add(self, ended: _Ended) -> None:
        super().add(ended)
        self.wait_seconds += ended.wait_seconds
        self.run_seconds += ended.run_seconds

    def merge(self, other: _Total) -> None:
        """Add another queue, for the row of all queues that have none of their own."""
        self.ends = {state: number + other.ends[state] for state, number in self.ends.items()}
        self.waits = add_histograms([self.waits, other.waits])
        self.runs = add_histograms([self.runs, other.runs])
        self.enqueued += other.enqueued
        self.wait_seconds += other.wait_seconds
        self.run_seconds += other.run_seconds

    def as_row(self, queue: str) -> dict[str, Any]:
        """The columns of `queue_totals`."""
        columns = {name: value for name, value in vars(self).items() if name != "ends"}
        return {"queue": queue, **self.ends, **columns}


def _sum_totals(rows: Iterable[_Ended]) -> dict[str, _Total]:
    totals: dict[str, _Total] = defaultdict(_Total)
    for row in rows:
        totals[row.queue].add(row)
    return totals


def _add_totals(context: Pass, totals: Mapping[str, _Total]) -> None:
    """Add to the totals, which never shrink. A queue that has a row keeps it; the first ones get one."""
    if not totals:
        return
    connection = context.connection
    named = {queue for (queue,) in connection.execute(sql.load("list_totaled_queues"))}
    named.discard(OTHER_QUEUES)
    added: dict[str, _Total] = defaultdict(_Total)
    for queue, total in sorted(totals.items()):
        if queue not in named and len(named) < MOST_QUEUE_TOTALS:
            named.add(queue)
        added[queue if queue in named else OTHER_QUEUES].merge(total)
    rows = [total.as_row(queue) for queue, total in added.items()]
    connection.execute(sql.load("add_queue_totals"), {"rows": json.dumps(rows)})


def _floor(moment: datetime) -> datetime:
    return moment.replace(second=0, microsecond=0)


LOOP = Loop("roll_up", every(10), run, is_alone=True)
