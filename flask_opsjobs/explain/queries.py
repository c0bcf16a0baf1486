"""Reads from Postgres the evidence that explains a job, with the few small queries that its state needs.

Redis is asked as soon as the columns of a job are read, so that a page can look again at a job whose delivery
is missing while it waits for the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from psycopg.rows import dict_row
from sqlalchemy import select
from sqlalchemy.orm import Session

from ..batches import queries as batch_queries
from ..core import sql
from ..core.db import Connection
from ..core.redis_facts import RedisFacts
from ..core.round_trips import StartedRead, start_reading, values_of
from ..jobs.adopted.chain_queries import list_parents
from ..jobs.adopted.models import RqFacts
from ..jobs.lifecycle import FINAL
from ..jobs.models import Attempt, Job
from ..jobs.rows import Count
from ..lifeline.loop_runs import LoopRow, find_loop, list_loops
from ..limits import stored_buckets
from ..limits.models import Lease
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
    PauseEvidence,
    Prefetch,
    QueueEvidence,
    RunEvidence,
    StepEvidence,
    StoredBatch,
)

# Counts and lists stop at these numbers and show "1,000+".
MOST_AHEAD = 1_000
MOST_LISTENERS = 200
MOST_HOLDERS = 5

# Asks Redis about jobs, and returns how to get what it says of each, in their order.
AskRedis = Callable[[Sequence[Evidence]], Callable[[], Sequence[RedisFacts | None]]]

_JOB = [getattr(Job, name) for name in JobEvidence.__annotations__]


def find_job_evidence(session: Session, job_id: int) -> JobEvidence | None:
    """The columns of the job that decide; None when there is no such job."""
    row = session.execute(select(*_JOB).where(Job.id == job_id)).one_or_none()
    return None if row is None else JobEvidence(*row)


def find_evidence_of(
    session: Session,
    job: JobEvidence,
    now: datetime,
    settings: Settings,
    ask_redis: AskRedis | None = None,
) -> Evidence:
    """All evidence about a job whose columns are read: that of Postgres, and what `ask_redis` tells."""
    (evidence,) = _list_evidence(session, [job], now, settings, ask_redis)
    return evidence


def _list_evidence(
    session: Session,
    jobs: Sequence[JobEvidence],
    now: datetime,
    settings: Settings,
    ask_redis: AskRedis | None = None,
    *,
    is_frontier: bool = False,
) -> list[Evidence]:
    """The same of several jobs, in their order. Those of a frontier wait for no other step."""
    asked = [Evidence(now, settings, job) for job in jobs]
    answer = ask_redis(asked) if ask_redis else None
    words = [_start_words(session, each, ask_redis, is_frontier) for each in asked]
    found = list_evidence_of_jobs(session, jobs, now, settings)
    found = [
        _with_words(one, values_of(of_one), is_frontier)
        for one, of_one in zip(found, words, strict=True)
    ]
    if answer is None:
        return found
    return [replace(one, redis=facts) for one, facts in zip(found, answer(), strict=True)]


def list_evidence_of_jobs(
    session: Session, jobs: Sequence[JobEvidence], now: datetime, settings: Settings
) -> list[Evidence]:
    """What decides the first reason of each of these jobs, in their order, except what is ahead of it.

    However many jobs there are, it sends the same few statements.
    """
    found = [Evidence(now, settings, job) for job in jobs]
    # Each adds other fields, and needs the job alone.
    added = [
        start_reading(session, _with_parents, found),
        start_reading(session, _with_steps, found),
        start_reading(session, _with_holders, found),
        start_reading(session, _with_start_conditions, found, settings),
        start_reading(session, _with_limits, found),
        start_reading(session, _with_decisions, found),
    ]
    loops = start_reading(session, _loops, now) if any(map(_is_ours, jobs)) else None
    found = [
        _merge(found[place], [each.value[place] for each in added]) for place in range(len(found))
    ]
    return [
        replace(one, loops=loops.value) if loops and _needs_loops(one) else one for one in found
    ]


def _merge(evidence: Evidence, others: Sequence[Evidence]) -> Evidence:
    """The evidence with what the others have in its stead."""
    changes = {
        name: value
        for other in others
        for name, value in vars(other).items()
        if value is not getattr(evidence, name)
    }
    return replace(evidence, **changes)


def _with_decisions(session: Session, found: list[Evidence]) -> list[Evidence]:
    """Add what operators decided about queues and tasks of waiting jobs, and what deferred ones wait for."""
    waiting = [each.job for each in found if _waits_for_us(each)]
    deferred = [job for job in waiting if job.state == "deferred"]
    pauses = start_reading(session, _pauses, {job.task for job in waiting})
    before = start_reading(session, _waits_for, {job.cron_entry for job in deferred})
    queues = _queues(session, {job.queue for job in waiting})
    return [
        replace(
            each,
            queue=queues.get(each.job.queue, QueueEvidence()),
            pause=pauses.value.get(each.job.task),
            waits_for=before.value.get(each.job.cron_entry, ())
            if each.job.state == "deferred"
            else (),
        )
        if _waits_for_us(each)
        else each
        for each in found
    ]


def _waits_for_us(evidence: Evidence) -> bool:
    """Whether it is a managed job that has not ended, and that no worker has."""
    return _is_ours(evidence.job) and not evidence.job.is_with_worker


def _is_ours(job: JobEvidence) -> bool:
    """Whether it is a managed job that has not ended."""
    return job.state not in FINAL and not job.is_adopted


def _needs_loops(evidence: Evidence) -> bool:
    return _waits_for_us(evidence) or (_is_ours(evidence.job) and evidence.is_abandoned)


def _with_parents(session: Session, found: list[Evidence]) -> list[Evidence]:
    """Add what RQ has adopted jobs wait for. What else decides, RQ knows."""
    ids = [one.job.id for one in found if one.job.is_adopted and one.job.state == "deferred"]
    if not ids:
        return found
    facts = select(RqFacts.job_id).where(RqFacts.job_id.in_(ids), RqFacts.allows_failure)
    found_facts = start_reading(session, Session.scalars, facts)
    parents = list_parents(session, ids)
    allowing = set(found_facts.value)
    return [
        replace(one, parents=parents.get(one.job.id, ()), allows_failure=one.job.id in allowing)
        for one in found
    ]


def _with_start_conditions(
    session: Session, found: list[Evidence], settings: Settings
) -> list[Evidence]:
    """Add what decides when due jobs start: the workers and the prefetch of their queues."""
    due = [one for one in found if one.is_due and not one.job.is_adopted]
    if not due:
        return found
    clock = _clock(due[0])
    keys = {_prefetch_key(one.job) for one in due}
    prefetches = start_reading(session, _prefetches, keys, settings, clock)
    listeners = _listeners(session, {one.job.queue for one in due}, clock)
    return [
        replace(
            one,
            listeners=listeners.get(one.job.queue, []),
            prefetch=prefetches.value[_prefetch_key(one.job)],
        )
        if one.is_due and not one.job.is_adopted
        else one
        for one in found
    ]


def _with_limits(session: Session, found: list[Evidence]) -> list[Evidence]:
    """Add the levels of their limiters: of due jobs and of early ones.

    Before a job is due, its limiter may have become too small for it, or may cool down beyond its due time.
    """
    limited = [
        one.job
        for one in found
        if _waits_for_us(one) and (one.is_due or one.is_early) and one.job.limiter is not None
    ]
    limits = _limits(session, limited)
    return [replace(one, limit=limits.get(one.job.id)) for one in found]


def _queues(session: Session, names: Collection[str]) -> Mapping[str, QueueEvidence]:
    if not names:
        return {}
    columns = [getattr(Queue, name) for name in QueueEvidence.__annotations__]
    rows = session.execute(select(Queue.name, *columns).where(Queue.name.in_(names)))
    return {name: QueueEvidence(*values) for name, *values in rows}


def _pauses(session: Session, tasks: Collection[str]) -> Mapping[str, PauseEvidence]:
    if not tasks:
        return {}
    params = {"tasks": list(tasks)}
    rows = session.connection().exec_driver_sql(sql.load("list_task_pauses"), params)
    return {task: PauseEvidence(*values) for task, *values in rows}


def _loops(session: Session, now: datetime) -> Mapping[str, LoopRow]:
    return {loop.loop: loop for loop in list_loops(session, now)}


def _waits_for(
    session: Session, entries: Collection[str | None]
) -> Mapping[str | None, Sequence[int]]:
    """The oldest few jobs of each of these cron entries that its deferred job waits for."""
    names = sorted(entry for entry in entries if entry is not None)
    if not names:
        return {}
    rows = session.connection().exec_driver_sql(
        sql.load("list_jobs_before_cron_job"), {"entries": names, "most": MOST_HOLDERS}
    )
    found: dict[str | None, list[int]] = {}
    for entry, job_id in rows:
        found.setdefault(entry, []).append(job_id)
    return found


def _start_words(
    session: Session, evidence: Evidence, ask_redis: AskRedis | None, is_frontier: bool
) -> dict[str, StartedRead[Any]]:
    """Start to read what only sentences need: names and numbers that decide nothing.

    `evidence` is that of the job alone. Who waited for the rest of it would know that some is not needed, but
    a page would wait once more.
    """
    job = evidence.job
    if not _is_ours(job):
        return {}
    words: dict[str, StartedRead[Any]] = {}
    if job.state == "deferred" and job.workflow_id is not None:
        if not is_frontier:
            words["frontier"] = start_reading(session, _frontier_of_step, evidence, ask_redis)
        words["signals_seen"] = start_reading(session, _count_signals, job)
    if job.limiter is not None:
        words["holders"] = start_reading(session, _list_holders, job)
    if not job.is_with_worker:
        words["last_attempt"] = start_reading(session, _last_attempt, job)
    if evidence.is_due:
        words["last_listener"] = start_reading(session, _last_listener, job)
    if evidence.is_due and job.state != "queued":
        lanes = {job.lane: (job.limiter, MOST_AHEAD)}
        words["ahead"] = start_reading(session, count_ahead, lanes, [job.id])
    return words


def _with_words(evidence: Evidence, words: Mapping[str, Any], is_frontier: bool) -> Evidence:
    """The evidence with those of its words that its sentences need."""
    if not words:
        return evidence
    step, limit = evidence.step, evidence.limit
    if step is not None and step.is_open_wait:
        step = replace(step, signals_seen=words.get("signals_seen", {}))
    elif step is not None and step.has_steps_before:
        step = replace(step, frontier=() if is_frontier else words["frontier"])
    if limit is not None and limit.shape is not None and limit.shape.concurrency is not None:
        limit = replace(limit, holders=words["holders"])
    evidence = replace(evidence, step=step, limit=limit, last_attempt=words.get("last_attempt"))
    if evidence.is_due and not evidence.alive:
        # One without heartbeats now, else one that has ended.
        last = max(
            evidence.listeners,
            key=lambda listener: listener.heartbeat_at,
            default=words["last_listener"],
        )
        evidence = replace(evidence, last_listener=last)
    if "ahead" in words:
        return with_ahead(evidence, *words["ahead"][evidence.job.id])
    return evidence


def _list_holders(session: Session, job: JobEvidence) -> Sequence[int]:
    """The jobs that have held a place of its limiter longest."""
    mine = (Lease.limiter == job.limiter, Lease.partition == (job.partition or ""))
    oldest = select(Lease.job_id).where(*mine).order_by(Lease.taken_at).limit(MOST_HOLDERS)
    return session.scalars(oldest).all()


def _last_attempt(session: Session, job: JobEvidence) -> AttemptEvidence | None:
    columns = [getattr(Attempt, name) for name in AttemptEvidence.__annotations__]
    mine = select(*columns).where(Attempt.job_id == job.id)
    row = session.execute(mine.order_by(Attempt.dispatch_no.desc()).limit(1)).one_or_none()
    return None if row is None else AttemptEvidence(*row)


def find_run_evidence(
    session: Session,
    run: int,
    now: datetime,
    settings: Settings,
    ask_redis: AskRedis | None = None,
) -> RunEvidence | None:
    """The evidence about a run and its frontier; None when there is no such run."""
    step = select(StepRecord.settled).where(
        StepRecord.workflow_id == WorkflowRecord.id, StepRecord.name == WorkflowRecord.ended_by_step
    )
    others = ("state_of_step", "removed", "frontier")
    names = [name for name in RunEvidence.__annotations__ if name not in others]
    columns = [getattr(WorkflowRecord, name) for name in names]
    params = {"run": run, "most": MOST_STEPS, "states": list(HOLDS_UP)}
    first = start_reading(session, _list_frontier, params)
    row = session.execute(
        select(*columns, step.scalar_subquery()).where(WorkflowRecord.id == run)
    ).one_or_none()
    if row is None:
        return None
    found = RunEvidence(*row)
    if found.is_final:
        return found
    removed = start_reading(session, _list_removed, params)
    frontier = _frontier(session, first.value, now, settings, ask_redis)
    return replace(found, removed=removed.value, frontier=frontier)


def _list_frontier(session: Session, params: Mapping[str, Any]) -> list[Any]:
    return list(session.connection().exec_driver_sql(sql.load("list_frontier_of_run"), params))


def _list_removed(session: Session, params: Mapping[str, Any]) -> list[str]:
    rows = session.connection().exec_driver_sql(sql.load("list_removed_steps"), params)
    return [name for (name,) in rows]


def find_stored_batch(session: Session, id: int) -> StoredBatch | None:
    """The rows of a batch that decide; None when there is no such batch."""
    callbacks = start_reading(session, batch_queries.list_callbacks_of_batch, id)
    members = start_reading(session, batch_queries.list_oldest_open_members, id, _JOB)
    batch = batch_queries.find_batch(session, id)
    if batch is None:
        return None
    return StoredBatch(batch, callbacks.value, [JobEvidence(*row) for row in members.value])


def find_batch_evidence(
    session: Session,
    stored: StoredBatch,
    now: datetime,
    settings: Settings,
    ask_redis: AskRedis | None = None,
) -> BatchEvidence:
    """The evidence about a batch whose rows are read, and about its oldest open members."""
    batch = stored.batch
    failed = [each for each in stored.callbacks if each.has_failed]
    found = BatchEvidence(now, batch, callbacks=failed)
    if batch.is_final:
        return found
    fold = start_reading(session, find_loop, now, "fold")
    added_at = start_reading(session, batch_queries.find_last_added, batch.id)
    members = start_reading(session, _list_evidence, stored.members, now, settings, ask_redis)
    return replace(
        found,
        fold=fold.value,
        last_added_at=added_at.value,
        members=members.value,
    )


def _with_steps(session: Session, found: list[Evidence]) -> list[Evidence]:
    """Add to jobs of workflows what they are there; nothing when the run was removed."""
    jobs = [one.job for one in found if one.job.workflow_id and one.job.state not in FINAL]
    if not jobs:
        return found
    deferred = [job.id for job in jobs if job.state == "deferred"]
    before = start_reading(session, _steps_before, deferred)
    params = {"ids": [job.id for job in jobs]}
    rows = session.connection().exec_driver_sql(sql.load("find_steps"), params)
    steps = {job_id: StepEvidence(*values) for job_id, *values in rows}
    names = before.value
    steps = {
        job_id: step
        if step.is_open_wait
        else replace(
            step,
            before=names.get((job_id, False), ()),
            removed=names.get((job_id, True), ()),
        )
        for job_id, step in steps.items()
    }
    return [replace(one, step=steps.get(one.job.id)) for one in found]


def _steps_before(session: Session, ids: Sequence[int]) -> Mapping[tuple[int, bool], Sequence[str]]:
    """The names of steps directly before each of these, by its id and whether their jobs were deleted."""
    if not ids:
        return {}
    params = {"ids": ids, "most": MOST_STEPS + 1}
    names: dict[tuple[int, bool], list[str]] = {}
    rows = session.connection().exec_driver_sql(sql.load("list_steps_before"), params)
    for job_id, name, is_removed in rows:
        names.setdefault((job_id, is_removed), []).append(name)
    return names


def _count_signals(session: Session, job: JobEvidence) -> Mapping[str, int]:
    """The signals that came for the job as an open wait, by outcome; none when it is not one."""
    params = {"id": job.id, "most": MOST_LATE_SIGNALS}
    rows = session.connection().exec_driver_sql(sql.load("count_signals_of_wait"), params)
    return {row.outcome: row.number for row in rows}


def _frontier_of_step(
    session: Session, evidence: Evidence, ask_redis: AskRedis | None
) -> list[FrontierStep]:
    params = {"id": evidence.job.id, "most": MOST_STEPS}
    rows = session.connection().exec_driver_sql(sql.load("list_frontier_of_step"), params)
    return _frontier(session, list(rows), evidence.now, evidence.settings, ask_redis)


def _frontier(
    session: Session,
    rows: Sequence[Any],
    now: datetime,
    settings: Settings,
    ask_redis: AskRedis | None,
) -> list[FrontierStep]:
    """The evidence of steps that wait for no other step. None of them reads the evidence of another."""
    jobs = [job_of(row) for row in rows]
    found = _list_evidence(session, jobs, now, settings, ask_redis, is_frontier=True)
    return [
        FrontierStep(row.name, each, waiting=row.waiting)
        for row, each in zip(rows, found, strict=True)
    ]


def job_of(row: Any) -> JobEvidence:
    """What decides of a job, from a row with the columns of `job_evidence.sql`."""
    return JobEvidence(*(getattr(row, name) for name in JobEvidence.__annotations__))


def _listeners(
    session: Session, queues: Collection[str], clock: Mapping[str, Any]
) -> Mapping[str, list[Listener]]:
    params = {"queues": sorted(queues), "most": MOST_LISTENERS, **clock}
    found: dict[str, list[Listener]] = {}
    for row in session.connection().exec_driver_sql(sql.load("list_listeners"), params).mappings():
        values = dict(row)
        found.setdefault(values.pop("queue"), []).append(Listener(**values))
    return found


def list_listeners(
    connection: Connection, queue: str, settings: Settings, now: datetime
) -> list[Listener]:
    """The workers that have not ended and listen to the queue, on the connection of an action."""
    clock = {"now": now, "late_seconds": settings.late_seconds}
    parameters = {"queues": [queue], "most": MOST_LISTENERS, **clock}
    with connection.cursor(row_factory=dict_row) as cursor:
        cursor.execute(sql.load("list_listeners"), parameters)
        return [
            Listener(**{name: value for name, value in row.items() if name != "queue"})
            for row in cursor
        ]


def find_last_listener(connection: Connection, queue: str) -> Listener | None:
    """The last worker that listened to the queue and has ended, on the connection of an action."""
    with connection.cursor(row_factory=dict_row) as cursor:
        row = cursor.execute(sql.load("find_last_listener"), {"queue": queue}).fetchone()
    return None if row is None else Listener(**row)


def _clock(evidence: Evidence) -> dict[str, Any]:
    """The parameters of `listeners.sql`."""
    return {"now": evidence.now, "late_seconds": evidence.settings.late_seconds}


def _last_listener(session: Session, job: JobEvidence) -> Listener | None:
    """The last worker that listened to the queue and has ended."""
    params = {"queue": job.queue}
    row = session.connection().exec_driver_sql(sql.load("find_last_listener"), params).one_or_none()
    return None if row is None else Listener(**row._mapping)


def _prefetch_key(job: JobEvidence) -> tuple[str, bool]:
    """Its queue, and whether its lane is that of a limiter: such a lane gets a larger prefetch."""
    return job.queue, job.lane != job.queue


def _prefetches(
    session: Session,
    keys: Collection[tuple[str, bool]],
    settings: Settings,
    clock: Mapping[str, Any],
) -> Mapping[tuple[str, bool], Prefetch]:
    params = {
        "queues": [queue for queue, _ in keys],
        "are_limited": [is_limited for _, is_limited in keys],
        "prefetch": settings.prefetch,
        **clock,
    }
    rows = session.connection().exec_driver_sql(sql.load("find_prefetches"), params)
    return {(queue, is_limited): Prefetch(size, used) for queue, is_limited, size, used in rows}


def count_ahead(
    session: Session, lanes: Mapping[str, tuple[str | None, int | None]], ids: Sequence[int]
) -> Mapping[int, tuple[int, int]]:
    """How many jobs are before each of these in its lane, and their weight.

    `lanes` says of each lane its limiter, since jobs too heavy for that never start and are skipped, and at
    which number counting stops: None stops where the limiter has room for no more.
    """
    params = {
        "lanes": list(lanes),
        "limiters": [limiter for limiter, _ in lanes.values()],
        "most": [most for _, most in lanes.values()],
        "ids": list(ids),
    }
    rows = session.connection().exec_driver_sql(sql.load("count_ahead"), params)
    return {job_id: (int(number), int(weight)) for job_id, number, weight in rows}


def with_ahead(evidence: Evidence, number: int, weight: int) -> Evidence:
    """The evidence with what is ahead of the job in its lane."""
    is_capped = number >= MOST_AHEAD
    ahead = Count(MOST_AHEAD, "at_least") if is_capped else Count(number)
    limit = evidence.limit
    return replace(evidence, ahead=ahead, limit=limit and replace(limit, ahead_weight=weight))


def _limits(session: Session, jobs: Sequence[JobEvidence]) -> Mapping[int, LimitEvidence]:
    """The level of the limiter of each of these jobs, which have one, by the job's id."""
    if not jobs:
        return {}
    wanted = {(job.limiter or "", job.partition or "", job.queue): None for job in jobs}
    decisions = start_reading(session, _cooldowns, {key[:2] for key in wanted})
    buckets = stored_buckets.list_buckets(
        session.connection(), [key[:2] for key in wanted], [key[2] for key in wanted]
    )
    found = dict(zip(wanted, buckets, strict=True))
    limits = {}
    for job in jobs:
        name, partition = job.limiter or "", job.partition or ""
        seen = found[name, partition, job.queue]
        limit = LimitEvidence(name, partition, job.weight or 0, seen.shape, seen.level)
        limits[job.id] = replace(limit, **decisions.value.get((name, partition), {}))
    return limits


def _cooldowns(
    session: Session, keys: Collection[tuple[str, str]]
) -> Mapping[tuple[str, str], dict[str, Any]]:
    """Who decided the cooldown that lasts longest, and why, of each bucket that is in one."""
    params = {"limiters": [name for name, _ in keys], "partitions": [part for _, part in keys]}
    rows = session.connection().exec_driver_sql(sql.load("find_cooldowns"), params).mappings()
    return {
        (row["limiter"], row["partition"]): {
            name: row[name]
            for name in ("cooldown_at", "cooldown_by", "cooldown_reason", "is_cooldown_of_all")
        }
        for row in rows
    }


def _with_holders(session: Session, found: list[Evidence]) -> list[Evidence]:
    """Add the worker that has a job; none when its row is gone."""
    ids = {
        one.job.reserved_by or one.job.worker_id
        for one in found
        if one.job.is_with_worker and not one.job.is_adopted
    } - {None}
    if not ids:
        return found
    rows = session.connection().exec_driver_sql(
        sql.load("find_holders"), {"ids": list(ids), **_clock(found[0])}
    )
    workers = {row.id: Listener(**row._mapping) for row in rows}
    return [
        replace(one, worker=workers.get(one.job.reserved_by or one.job.worker_id or 0))
        if one.job.is_with_worker and not one.job.is_adopted
        else one
        for one in found
    ]
