"""Reads from Postgres the evidence that explains a job, with the few small queries that its state needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from ..batches import queries as batch_queries
from ..core import sql
from ..jobs.adopted.chain_queries import find_parents
from ..jobs.adopted.models import RqFacts
from ..jobs.lifecycle import FINAL
from ..jobs.models import Attempt, Job
from ..jobs.rows import Count
from ..lifeline.loop_runs import LoopRow, find_loop, list_loops
from ..limits import stored_buckets
from ..limits.models import Bucket, Lease, Limiter
from ..queues.models import Queue
from ..settings import Settings
from ..workflows.lifecycle import HOLDS_UP, MOST_LATE_SIGNALS
from ..workflows.models import StepRecord, WorkflowRecord
from .evidence import (
    MOST_STEPS,
    AttemptEvidence,
    BatchEvidence,
    Evidence,
    FrontierStep,
    JobEvidence,
    LimitEvidence,
    Listener,
    Prefetch,
    QueueEvidence,
    RunEvidence,
    StepEvidence,
)

# Counts and lists stop at these numbers and show "1,000+".
MOST_AHEAD = 1_000
MOST_LISTENERS = 200
MOST_HOLDERS = 5


def find_evidence(
    session: Session, job_id: int, now: datetime, settings: Settings
) -> Evidence | None:
    """All evidence that is in Postgres; None when there is no such job."""
    columns = [getattr(Job, name) for name in JobEvidence.__annotations__]
    row = session.execute(select(*columns).where(Job.id == job_id)).one_or_none()
    if row is None:
        return None
    evidence = Evidence(now, settings, JobEvidence(*row))
    if evidence.job.state in FINAL:
        return evidence
    if evidence.job.is_adopted:
        return _with_parents(session, evidence)
    if evidence.job.workflow_id is not None:
        evidence = replace(evidence, step=_step(session, evidence))
    if evidence.job.is_with_worker:
        evidence = replace(evidence, worker=_worker(session, evidence))
        return replace(evidence, loops=_loops(session, now)) if evidence.is_abandoned else evidence
    if evidence.job.state == "deferred" and evidence.job.cron_entry is not None:
        evidence = replace(evidence, waits_for=_waits_for(session, evidence.job))
    evidence = replace(
        evidence,
        queue=_queue(session, evidence.job.queue),
        last_attempt=_last_attempt(session, evidence.job),
        loops=_loops(session, now),
    )
    if evidence.is_due:
        return _with_start_conditions(session, evidence)
    # Before it is due, its limiter may have become too small for it, or may cool down beyond its due time.
    return replace(evidence, limit=_limit(session, evidence.job)) if evidence.is_early else evidence


def _with_parents(session: Session, evidence: Evidence) -> Evidence:
    """Add what RQ has the job wait for. What else decides, RQ knows."""
    if evidence.job.state != "deferred":
        return evidence
    allows = select(RqFacts.allows_failure).where(RqFacts.job_id == evidence.job.id)
    parents = find_parents(session, evidence.job.id)
    allows_failure = bool(session.scalars(allows).one_or_none())
    return replace(evidence, parents=parents, allows_failure=allows_failure)


def _with_start_conditions(session: Session, evidence: Evidence) -> Evidence:
    """Add what decides when a due job starts: workers, prefetch, jobs ahead and its limiter."""
    evidence = replace(
        evidence, listeners=_listeners(session, evidence), prefetch=_prefetch(session, evidence)
    )
    if not evidence.alive:
        evidence = replace(evidence, last_listener=_last_listener(session, evidence))
    limit = _limit(session, evidence.job)
    if evidence.job.state == "queued":
        return replace(evidence, limit=limit)
    if limit is None:
        return replace(evidence, ahead=_ahead(session, evidence.job, None)[0])
    # Jobs that are too heavy ever to start are skipped, so they do not count as ahead.
    heaviest = None if limit.shape is None else limit.shape.most
    ahead, weight = _ahead(session, evidence.job, heaviest)
    return replace(evidence, ahead=ahead, limit=replace(limit, ahead_weight=weight))


def _queue(session: Session, name: str) -> QueueEvidence:
    columns = [getattr(Queue, name) for name in QueueEvidence.__annotations__]
    row = session.execute(select(*columns).where(Queue.name == name)).one_or_none()
    return QueueEvidence() if row is None else QueueEvidence(*row)


def _loops(session: Session, now: datetime) -> Mapping[str, LoopRow]:
    return {loop.loop: loop for loop in list_loops(session, now)}


def _last_attempt(session: Session, job: JobEvidence) -> AttemptEvidence | None:
    columns = [getattr(Attempt, name) for name in AttemptEvidence.__annotations__]
    mine = select(*columns).where(Attempt.job_id == job.id)
    row = session.execute(mine.order_by(Attempt.dispatch_no.desc()).limit(1)).one_or_none()
    return None if row is None else AttemptEvidence(*row)


def _waits_for(session: Session, job: JobEvidence) -> Sequence[int]:
    """The jobs of its cron entry that must end first."""
    others = select(Job.id).where(
        Job.cron_entry == job.cron_entry, Job.ended_at.is_(None), Job.state != "deferred"
    )
    return session.scalars(others.order_by(Job.id).limit(MOST_HOLDERS)).all()


def find_run_evidence(
    session: Session, run: int, now: datetime, settings: Settings
) -> RunEvidence | None:
    """What is in Postgres about a run and its frontier; None when there is no such run."""
    step = select(StepRecord.settled).where(
        StepRecord.workflow_id == WorkflowRecord.id, StepRecord.name == WorkflowRecord.ended_by_step
    )
    others = ("state_of_step", "removed", "frontier")
    names = [name for name in RunEvidence.__annotations__ if name not in others]
    columns = [getattr(WorkflowRecord, name) for name in names]
    row = session.execute(
        select(*columns, step.scalar_subquery()).where(WorkflowRecord.id == run)
    ).one_or_none()
    if row is None:
        return None
    found = RunEvidence(*row)
    if found.is_final:
        return found
    params = {"run": run, "most": MOST_STEPS, "states": list(HOLDS_UP)}
    removed = session.connection().exec_driver_sql(sql.load("list_removed_steps"), params)
    first = session.connection().exec_driver_sql(sql.load("list_frontier_of_run"), params)
    return replace(
        found,
        removed=[name for (name,) in removed],
        frontier=_frontier(session, list(first), now, settings),
    )


def find_batch_evidence(
    session: Session, id: int, now: datetime, settings: Settings
) -> BatchEvidence | None:
    """What is in Postgres about a batch and its oldest open members; None when there is no such batch."""
    batch = batch_queries.find_batch(session, id)
    if batch is None:
        return None
    callbacks = batch_queries.list_callbacks_of_batch(session, id)
    found = BatchEvidence(now, batch, callbacks=[each for each in callbacks if each.has_failed])
    if batch.is_final:
        return found
    members = batch_queries.list_oldest_open_members(session, id)
    evidence = [find_evidence(session, member, now, settings) for member in members]
    return replace(
        found,
        fold=find_loop(session, now, "fold"),
        last_added_at=batch_queries.find_last_added(session, id),
        members=[each for each in evidence if each is not None],
    )


def _step(session: Session, evidence: Evidence) -> StepEvidence | None:
    """The job as a step of its run; None when the run was removed."""
    params = {"id": evidence.job.id, "most": MOST_STEPS}
    read = session.connection().exec_driver_sql
    row = read(sql.load("find_step"), params).one_or_none()
    if row is None:
        return None
    step = StepEvidence(*row)
    if step.is_open_wait:
        seen = {
            "signals": list(step.signals or ()),
            "key": step.key,
            "run": step.run,
            "most": MOST_LATE_SIGNALS,
        }
        outcomes = read(sql.load("count_signals_of_wait"), seen)
        return replace(step, signals_seen={row.outcome: row.number for row in outcomes})
    if evidence.job.state != "deferred":
        return step
    before = list(read(sql.load("list_steps_before"), {**params, "most": MOST_STEPS + 1}))
    frontier = list(read(sql.load("list_frontier_of_step"), params)) if before else []
    return replace(
        step,
        before=[each.name for each in before if not each.is_removed],
        removed=[each.name for each in before if each.is_removed],
        frontier=_frontier(session, frontier, evidence.now, evidence.settings),
    )


def _frontier(
    session: Session, rows: Sequence[Any], now: datetime, settings: Settings
) -> list[FrontierStep]:
    """The evidence of steps that wait for no other step. None of them reads the evidence of another."""
    found = [(row, find_evidence(session, row.id, now, settings)) for row in rows]
    return [
        FrontierStep(row.name, each, waiting=row.waiting) for row, each in found if each is not None
    ]


def _listeners(session: Session, evidence: Evidence) -> list[Listener]:
    params = {"queue": evidence.job.queue, "most": MOST_LISTENERS, **_clock(evidence)}
    rows = session.connection().exec_driver_sql(sql.load("list_listeners"), params)
    return [Listener(**row._mapping) for row in rows]


def _clock(evidence: Evidence) -> dict[str, Any]:
    """The parameters of `listeners.sql`."""
    return {"now": evidence.now, "late_seconds": evidence.settings.late_seconds}


def _last_listener(session: Session, evidence: Evidence) -> Listener | None:
    """The worker that listened to the queue last: one without heartbeats now, else one that has ended."""
    if evidence.listeners:
        return max(evidence.listeners, key=lambda listener: listener.heartbeat_at)
    params = {"queue": evidence.job.queue}
    row = session.connection().exec_driver_sql(sql.load("find_last_listener"), params).one_or_none()
    return None if row is None else Listener(**row._mapping)


def _prefetch(session: Session, evidence: Evidence) -> Prefetch:
    params = {
        "queue": evidence.job.queue,
        "lane": evidence.job.lane,
        "prefetch": evidence.settings.prefetch,
        **_clock(evidence),
    }
    return Prefetch(*session.connection().exec_driver_sql(sql.load("find_prefetch"), params).one())


def _ahead(session: Session, job: JobEvidence, heaviest: int | None) -> tuple[Count, int]:
    """How many jobs are before it in its lane, and their weight."""
    params = {name: getattr(job, name) for name in ("lane", "priority", "due_at", "id")}
    params |= {"most": MOST_AHEAD + 1, "heaviest": heaviest}
    row = session.connection().exec_driver_sql(sql.load("count_ahead"), params).one()
    is_capped = row.number > MOST_AHEAD
    return Count(MOST_AHEAD, "at_least") if is_capped else Count(row.number), row.weight


def _limit(session: Session, job: JobEvidence) -> LimitEvidence | None:
    """The level of its limiter; None when it has no limiter."""
    if job.limiter is None or job.partition is None or job.weight is None:
        return None
    found = stored_buckets.get_bucket(
        session.connection(), job.limiter, job.partition, queue=job.queue
    )
    holders: Sequence[int] = ()
    if found.shape is not None and found.shape.concurrency is not None:
        mine = (Lease.limiter == job.limiter, Lease.partition == job.partition)
        oldest = select(Lease.job_id).where(*mine).order_by(Lease.taken_at).limit(MOST_HOLDERS)
        holders = session.scalars(oldest).all()
    evidence = LimitEvidence(
        job.limiter, job.partition, job.weight, found.shape, found.level, holders
    )
    return _with_cooldown(session, evidence) if found.level.cooldown_until is not None else evidence


def _with_cooldown(session: Session, limit: LimitEvidence) -> LimitEvidence:
    """Add who decided the cooldown that lasts longest, and why."""
    of_all = select(*_cooldown_of(Limiter)).where(Limiter.name == limit.name)
    of_one = select(*_cooldown_of(Bucket)).where(
        Bucket.limiter == limit.name, Bucket.partition == limit.partition
    )
    rows = [
        (statement is of_all, *row)
        for statement in (of_all, of_one)
        for row in session.execute(statement)
        if row[0]
    ]
    is_of_all, _, at, by, reason = max(rows, key=lambda row: row[1])
    decided = {"cooldown_at": at, "cooldown_by": by, "cooldown_reason": reason}
    return replace(limit, **decided, is_cooldown_of_all=is_of_all)


def _cooldown_of(table: Any) -> tuple[Any, ...]:
    return table.cooldown_until, table.cooldown_at, table.cooldown_by, table.cooldown_reason


def _worker(session: Session, evidence: Evidence) -> Listener | None:
    """The worker that has the job; None when its row is gone."""
    job = evidence.job
    params = {"id": job.reserved_by or job.worker_id, **_clock(evidence)}
    row = session.connection().exec_driver_sql(sql.load("find_holder"), params).one_or_none()
    if row is None:
        return None
    return Listener(**row._mapping)
