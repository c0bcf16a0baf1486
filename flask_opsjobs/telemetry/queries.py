"""Reads the numbers of all metrics from Postgres, at a cost that does not grow with the number of jobs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from importlib.metadata import version
from itertools import accumulate
from typing import Any

from sqlalchemy import Row, select
from sqlalchemy.orm import Session

from ..core import sql
from ..cron.lifecycle import RESULTS
from ..jobs.lifecycle import FINAL, MANAGED_FINAL, STATES
from ..lifeline.detectors import DETECTORS
from ..lifeline.loop_runs import list_loops
from ..limits.bucket import BucketLevel, Shape, tokens_at
from ..overview.models import MOST_QUEUE_TOTALS, OTHER_QUEUES, QueueTotal
from ..overview.pace_queries import BOUNDS
from ..settings import Settings
from .metrics import OTHERS, STATES_OF_RQ

# The live jobs of a state are counted in the scrape up to this, and above it as of the last integrity check.
_MOST_LIVE = 1_000
_MOST_LANES = 1_000
_MOST_WORKERS = 1_000
_MOST_LIMITERS = 200
_LIVE = tuple(state for state in STATES if state not in FINAL)
_BOUNDS = (*map(str, BOUNDS), "+Inf")
# Asking for it reads a file.
_version_of = cache(version)


@dataclass(frozen=True)
class Durations:
    """How many durations lie between the bounds of `pace_queries.py`, and their sum in seconds."""

    counts: Sequence[int]
    seconds: float

    def buckets(self) -> dict[str, int]:
        """How many durations are at most as long as each bound."""
        missing = [0] * (len(_BOUNDS) - len(self.counts))
        return dict(zip(_BOUNDS, accumulate([*self.counts, *missing]), strict=True))


# The values of a metric by the values of its labels, and those of each metric by its name.
Series = Mapping[tuple[str, ...], float | Durations]
Values = Mapping[str, Series]


@dataclass
class _Found:
    """The numbers that are read, and which queues have series of their own."""

    queues: set[str]
    values: dict[str, dict[tuple[str, ...], Any]] = field(
        default_factory=lambda: defaultdict(lambda: defaultdict(int))
    )

    def label(self, queue: str) -> str:
        """The label of a queue: its name, or that of all others when 200 have their names already."""
        if (
            queue not in self.queues
            and len(self.queues) < MOST_QUEUE_TOTALS
            and queue != OTHER_QUEUES
        ):
            self.queues.add(queue)
        return queue if queue in self.queues else OTHERS

    def add(self, metric: str, value: float, *labels: str) -> None:
        """Add to a number, because several queues may share a label."""
        self.values[metric][labels] += value


def find_values(session: Session, now: datetime, settings: Settings) -> Values:
    """Return the values of all metrics that Postgres knows. Eight statements."""
    totals = session.execute(_TOTALS).all()
    found = _Found({row.queue for row in totals} - {OTHER_QUEUES})
    _add_totals(found, totals)
    _add_jobs(found, session)
    _add_oldest_due(found, session, now)
    _add_workers(found, session, now, settings)
    _add_labeled(found, session)
    for loop in list_loops(session, now, settings.loops_off):
        age = max(0.0, (now - loop.last_at).total_seconds())
        found.add("opsjobs_loop_age_seconds", age, loop.loop)
    _add_limiters(found, session, now)
    _add_zeros(found)
    _add_statuses(found)
    return found.values


# Built once, as in overview/pace_queries.py.
_TOTALS = select(
    QueueTotal.queue,
    QueueTotal.enqueued,
    *(getattr(QueueTotal, state) for state in MANAGED_FINAL),
    QueueTotal.waits,
    QueueTotal.runs,
    QueueTotal.wait_seconds,
    QueueTotal.run_seconds,
).limit(MOST_QUEUE_TOTALS + 1)


def _add_totals(found: _Found, rows: Iterable[Row[Any]]) -> None:
    for row in rows:
        queue = found.label(row.queue)
        found.add("opsjobs_jobs_enqueued_total", row.enqueued, queue)
        for state in MANAGED_FINAL:
            found.add("opsjobs_jobs_ended_total", getattr(row, state), queue, state)
        waits, runs = Durations(row.waits, row.wait_seconds), Durations(row.runs, row.run_seconds)
        found.values["opsjobs_job_wait_seconds"][(queue,)] = waits
        found.values["opsjobs_job_run_seconds"][(queue,)] = runs


def _add_jobs(found: _Found, session: Session) -> None:
    """Count live jobs now, and those that ended, or are too many, as of the last integrity check."""
    connection = session.connection()
    named = sorted(found.queues)
    params = {"named": named, "more": MOST_QUEUE_TOTALS - len(named)}
    counted = connection.exec_driver_sql(sql.load("list_counted_states"), params).all()
    for row in counted:
        found.label(row.queue)
    params = {"states": list(_LIVE), "most": _MOST_LIVE + 1}
    sampled = connection.exec_driver_sql(sql.load("sample_live_jobs"), params).all()
    number_of: dict[str, int] = defaultdict(int)
    for row in sampled:
        number_of[row.state] += row.number
    exact = {state for state in _LIVE if number_of[state] <= _MOST_LIVE}
    for row in sampled:
        if row.state in exact:
            found.add("opsjobs_jobs", row.number, found.label(row.queue), row.state)
        if row.state == "queued":
            _note_oldest(found, row.queue, row.since)
    for row in counted:
        if row.state is None:
            found.add("opsjobs_integrity_difference", row.number, found.label(row.queue))
        elif row.state not in exact:
            found.add("opsjobs_jobs", row.number, found.label(row.queue), row.state)


def _add_oldest_due(found: _Found, session: Session, now: datetime) -> None:
    params = {"most": _MOST_LANES}
    for row in session.connection().exec_driver_sql(sql.load("find_oldest_due"), params):
        _note_oldest(found, row.queue, row.due_at)
    oldest = found.values["opsjobs_oldest_due_seconds"]
    for labels, due_at in oldest.items():
        oldest[labels] = max(0.0, (now - due_at).total_seconds())


def _note_oldest(found: _Found, queue: str, due_at: datetime) -> None:
    oldest, labels = found.values["opsjobs_oldest_due_seconds"], (found.label(queue),)
    oldest[labels] = min(oldest.get(labels, due_at), due_at)


def _add_workers(found: _Found, session: Session, now: datetime, settings: Settings) -> None:
    params = {"now": now, "late_seconds": settings.late_seconds, "most": _MOST_WORKERS}
    for row in session.connection().exec_driver_sql(sql.load("list_workers_with_work"), params):
        found.add("opsjobs_workers", 1, row.state, row.kind)
        if row.is_listening:
            for queue in row.queues:
                found.add("opsjobs_queue_listeners", 1, found.label(queue))
        if row.state == "alive" and row.kind != "loops":
            queues = ",".join(row.queues)
            found.add("rq_workers", 1, row.name, "busy" if row.is_busy else "idle", queues)
            found.add("rq_workers_success_total", row.jobs_finished, row.name, queues)
            found.add("rq_workers_failed_total", row.jobs_failed, row.name, queues)
            found.add("rq_workers_working_time_total", row.work_seconds, row.name, queues)


def _add_labeled(found: _Found, session: Session) -> None:
    """Add what is one number for one or two words."""
    for row in session.connection().exec_driver_sql(sql.load("list_labeled_numbers")):
        if row.metric == "opsjobs_queue_paused":
            found.values[row.metric][(found.label(row.label),)] = 1
        elif row.metric == "schema":
            versions = _version_of("flask-opsjobs"), str(row.number), _version_of("rq")
            found.values["opsjobs_info"][versions] = 1
        else:
            labels = (row.label,) if row.second is None else (row.label, row.second)
            found.add(row.metric, row.number, *labels)


def _add_limiters(found: _Found, session: Session, now: datetime) -> None:
    params = {"most": _MOST_LIMITERS}
    for row in session.connection().exec_driver_sql(sql.load("list_tokens"), params):
        shape = Shape(row.rate, row.per_seconds, row.burst, None)
        tokens = tokens_at(shape, BucketLevel(row.tokens, row.refilled_at), now)
        found.add("opsjobs_limiter_tokens", tokens, row.name)


def _add_zeros(found: _Found) -> None:
    """Add the numbers that are 0, so that their series do not end."""
    queues = sorted(found.queues)
    if any(queue == OTHERS for queue, _ in found.values["opsjobs_jobs"]):
        queues.append(OTHERS)
    for queue in queues:
        for state in STATES:
            found.add("opsjobs_jobs", 0, queue, state)
        for metric in _OF_QUEUES:
            found.add(metric, 0, queue)
    for class_ in DETECTORS:
        found.add("opsjobs_incidents_open", 0, class_)
    for result in RESULTS:
        found.add("opsjobs_cron_slots_total", 0, result)


def _add_statuses(found: _Found) -> None:
    """Add the jobs by RQ's statuses."""
    status_of = {state: status for status, states in STATES_OF_RQ.items() for state in states}
    for (queue, state), number in found.values["opsjobs_jobs"].items():
        if state in status_of:
            found.add("rq_jobs", number, queue, status_of[state])


_OF_QUEUES = (
    "opsjobs_oldest_due_seconds",
    "opsjobs_queue_paused",
    "opsjobs_queue_listeners",
    "opsjobs_integrity_difference",
)
