"""Reads the overview page: the depth of queues, the workers and loops, and the last failures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy.orm import Session

from ..core import sql
from ..cron.queries import Missed, list_missed_lately
from ..jobs import queries as job_queries
from ..jobs.lifecycle import FINAL, STATES
from ..jobs.rows import CAP, Count, JobRow
from ..jobs.search.filter import JobFilter
from ..lifeline import integrity_queries
from ..lifeline import queries as lifeline_queries
from ..lifeline.integrity_queries import IntegrityRow
from ..lifeline.queries import LoopRow
from ..queues import queries as queue_queries
from ..queues.lifecycle import state_of
from ..queues.queries import QueueRow
from ..workers import queries as worker_queries
from ..workers.queries import WorkerRow
from .attention_queries import CooldownSummary, Held, count_orphans, find_held, list_cooldowns

LIVE = tuple(state for state in STATES if state not in FINAL)
DUE = ("available", "queued")
_FAILURES = 5
# Pages that only show how many jobs wait for a silent source count up to this.
_MOST_DUE = 1_000


@dataclass(frozen=True)
class StateDepth:
    """The number of jobs in a live state. `since` is when the first of them entered the state or was due."""

    count: Count
    since: datetime | None = None


@dataclass(frozen=True)
class QueueDepth:
    """A queue: an operator's decision about it, its listening workers, and its live jobs by state."""

    name: str
    decision: QueueRow | None
    listeners: int
    states: Mapping[str, StateDepth]

    @property
    def state(self) -> str:
        """`open`, `draining` or `paused`."""
        decided = self.decision
        return state_of(decided.is_paused, decided.is_draining) if decided else "open"

    @property
    def due(self) -> int:
        """How many jobs are due now; a lower bound when counting stopped early."""
        return sum(self.states[state].count.number for state in DUE)

    @property
    def due_since(self) -> datetime | None:
        """Since when the first due job waits."""
        return min((moment for state in DUE if (moment := self.states[state].since)), default=None)


@dataclass(frozen=True)
class Overview:
    """All numbers of the overview page, read in one transaction."""

    queues: Sequence[QueueDepth]
    live: Mapping[str, StateDepth]
    final: Mapping[str, Count]
    next_due: datetime | None
    failed_last_hour: Count
    failed_last_day: Count
    first_failure: datetime | None
    failures: Sequence[JobRow]
    held: Sequence[Held]
    is_all_held: bool
    cooling: Sequence[CooldownSummary]
    missed: Mapping[str, Missed]
    orphans: int
    workers: Sequence[WorkerRow]
    loops: Sequence[LoopRow]
    integrity: Sequence[IntegrityRow]

    @property
    def alive(self) -> Sequence[WorkerRow]:
        """The workers that are alive and listen."""
        return [worker for worker in self.workers if worker.is_listening]


def find_overview(session: Session, now: datetime, late_seconds: float) -> Overview:
    """The numbers of the overview page as of `now`. Their cost does not grow with the number of jobs."""
    workers = worker_queries.list_workers(session, now, late_seconds)
    sample = _sample(session)
    counts = job_queries.count_jobs_by_state(session, JobFilter(), now)
    an_hour_ago = now - timedelta(hours=1)
    held, is_all_held = find_held(session, now)
    return Overview(
        queues=_queues(session, sample, workers, queue_queries.list_decisions(session)),
        live={state: _sum(state, sample) for state in LIVE},
        final={state: counts[state] for state in FINAL},
        next_due=job_queries.find_next_due(session),
        failed_last_hour=job_queries.count_failed_since(session, an_hour_ago),
        failed_last_day=job_queries.count_failed_since(session, now - timedelta(days=1)),
        first_failure=job_queries.find_first_failure(session, an_hour_ago),
        held=held,
        is_all_held=is_all_held,
        cooling=list_cooldowns(session, now),
        missed=list_missed_lately(session, now),
        orphans=count_orphans(session),
        failures=job_queries.find_recent_failures(session, _FAILURES),
        workers=workers,
        loops=lifeline_queries.list_loops(session, now),
        integrity=integrity_queries.list_integrity_checks(session),
    )


def find_queues(
    session: Session, workers: Sequence[WorkerRow], decided: Mapping[str, QueueRow]
) -> Sequence[QueueDepth]:
    """Every queue named by a job, by one of `workers` or in `decided`, with its depth."""
    return _queues(session, _sample(session), workers, decided)


def count_due(session: Session) -> Mapping[str, Count]:
    """How many jobs are due or dispatched, by queue. Above 1,000 jobs the counts are lower bounds."""
    params = {"states": list(DUE), "most": _MOST_DUE + 1}
    rows = session.connection().exec_driver_sql(sql.load("sample_live_jobs"), params).all()
    is_cut = sum(row.number for row in rows) > _MOST_DUE
    due: dict[str, Count] = {}
    for row in rows:
        before = due[row.queue].number if row.queue in due else 0
        due[row.queue] = Count(before + row.number, "at_least" if is_cut else "exact")
    return due


Sample = Mapping[tuple[str, str], StateDepth]


def _sample(session: Session) -> Sample:
    """The live jobs by state and queue. The counts of a state with more than `CAP` jobs are lower bounds."""
    params = {"states": list(LIVE), "most": CAP + 1}
    rows = session.connection().exec_driver_sql(sql.load("sample_live_jobs"), params).all()
    seen = dict.fromkeys(LIVE, 0)
    for state, _, number, _ in rows:
        seen[state] += number
    kinds = {state: "at_least" if number > CAP else "exact" for state, number in seen.items()}
    return {
        (state, queue): StateDepth(Count(min(number, CAP), kinds[state]), since)
        for state, queue, number, since in rows
    }


def _sum(state: str, sample: Sample) -> StateDepth:
    depths = [depth for (of_state, _), depth in sample.items() if of_state == state]
    since = min((depth.since for depth in depths if depth.since), default=None)
    counted = Count.sum(depth.count for depth in depths)
    return StateDepth(Count(min(counted.number, CAP), counted.kind), since)


def _queues(
    session: Session,
    sample: Sample,
    workers: Sequence[WorkerRow],
    decided: Mapping[str, QueueRow],
) -> Sequence[QueueDepth]:
    known = {name for one in workers if one.state != "missing" for name in one.queues}
    listened = [name for one in workers if one.is_listening for name in one.queues]
    names = {*queue_queries.list_queue_names(session), *decided, *known}
    capped = {state for (state, _), depth in sample.items() if depth.count.kind == "at_least"}
    nothing = {
        state: StateDepth(Count(0, "at_least" if state in capped else "exact")) for state in LIVE
    }
    return [
        QueueDepth(
            name,
            decided.get(name),
            listened.count(name),
            {state: sample.get((state, name), nothing[state]) for state in LIVE},
        )
        for name in sorted(names)
    ]
