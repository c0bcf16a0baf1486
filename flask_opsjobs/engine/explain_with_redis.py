"""Explains why a job, a workflow or a batch has not ended, and looks up deliveries in Redis."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import Any

from psycopg.rows import class_row
from redis import RedisError
from rq.job import Job as RQJob
from rq.registry import StartedJobRegistry
from rq.suspension import WORKERS_SUSPENDED
from sqlalchemy.orm import Session

from ..core import sql
from ..core.db import OLDEST_SCHEMA, is_id
from ..core.reading import PAGE_PLANS, read_snapshot
from ..core.redis_facts import RedisFacts
from ..core.round_trips import StartedRead, start_beside, value_of
from ..core.words import show_value
from ..errors import ConfigError, OpsJobsError, UnknownBatch, UnknownJob, UnknownWorkflow
from ..explain.evidence import Evidence, FrontierStep, JobEvidence, StoredBatch
from ..explain.explain import (
    explain_batch_evidence,
    explain_evidence,
    explain_run,
    explain_schema,
)
from ..explain.kind_queries import add_evidence, list_kinds
from ..explain.queries import (
    find_batch_evidence,
    find_evidence_of,
    find_job_evidence,
    find_run_evidence,
    find_stored_batch,
)
from ..explain.reason_kinds import (
    AnyExplanation,
    BatchExplanation,
    Explanation,
    WorkflowExplanation,
)
from ..explain.waiting import WaitingExplanation, WaitingKind, explain_kinds
from ..host import Host
from ..jobs.search import terms
from ..jobs.search.filter import JobFilter
from ..jobs.search.hit_queries import shows
from ..jobs.search.waiting_queries import find_waiting
from .redis.broker import broker_of
from .redis.broker import rq_id as name_of
from .redis.connections import by_redis, read_only_queue
from .redis.reads import FoundDeliveries, find_deliveries_of_queues


def explain(
    host: Host, session: Session, job_id: int, now: datetime, *, names_partition: bool = True
) -> Explanation | None:
    """Return why the job is not running; None when there is no such job. The caller has checked the schema.

    Reads through `session`, then asks Redis once, for at most 0.2 s, when the answer depends on it. Without
    `names_partition` the text leaves out the partition of the limiter, which is a value of the job's
    arguments.
    """
    job = find_job_evidence(session, job_id)
    if job is None:
        return None
    return explain_job(host, session, job, now, names_partition=names_partition)


def explain_job(
    host: Host, session: Session, job: JobEvidence, now: datetime, *, names_partition: bool
) -> Explanation:
    """Do what `explain` does, for a job whose columns are read."""
    evidence = find_evidence_of(session, job, now, host.settings, partial(_ask_redis, host))
    if not names_partition:
        evidence = _without_partition(evidence)
    if evidence.step is not None:
        frontier = _without_partitions(evidence.step.frontier)
        evidence = replace(evidence, step=replace(evidence.step, frontier=frontier))
    return explain_evidence(evidence)


def explain_workflow(
    host: Host, session: Session, run: int, now: datetime
) -> WorkflowExplanation | None:
    """Return why the run has not ended; None when there is no such run. The caller has checked the schema.

    Reads as `explain` does. No text names a partition.
    """
    found = find_run_evidence(session, run, now, host.settings, partial(_ask_redis, host))
    if found is None:
        return None
    return explain_run(replace(found, frontier=_without_partitions(found.frontier)), now)


def explain_batch(host: Host, session: Session, id: int, now: datetime) -> BatchExplanation | None:
    """Return why the batch has not ended; None when there is no such batch.

    The caller has checked the schema. Reads as `explain` does. No text names a partition.
    """
    stored = find_stored_batch(session, id)
    return None if stored is None else explain_stored_batch(host, session, stored, now)


def explain_stored_batch(
    host: Host, session: Session, stored: StoredBatch, now: datetime
) -> BatchExplanation:
    """Do what `explain_batch` does, for a batch whose rows are read."""
    found = find_batch_evidence(session, stored, now, host.settings, partial(_ask_redis, host))
    members = [_without_partition(member) for member in found.members]
    return explain_batch_evidence(replace(found, members=members))


def _without_partitions(frontier: Sequence[FrontierStep]) -> list[FrontierStep]:
    return [replace(step, evidence=_without_partition(step.evidence)) for step in frontier]


def _without_partition(evidence: Evidence) -> Evidence:
    """The evidence whose texts do not name the partition of the limiter."""
    limit = evidence.limit
    return replace(evidence, limit=limit and replace(limit, is_named=False))


def _ask_redis(host: Host, jobs: Sequence[Evidence]) -> Callable[[], Sequence[RedisFacts | None]]:
    """Ask Redis about each of these jobs, as `AskRedis` says. Only their columns are known yet."""
    found = [_read_redis_facts_of(host, each) for each in jobs]
    lost = {
        each.job.id: each.job.dispatch_no
        for each, facts in zip(jobs, found, strict=True)
        if replace(each, redis=facts).is_lost
    }
    find_still = _start_looking_again(host, lost)

    def answer() -> Sequence[RedisFacts | None]:
        moved = lost.keys() - find_still().keys()
        return [
            replace(facts, is_running=True) if facts and each.job.id in moved else facts
            for each, facts in zip(jobs, found, strict=True)
        ]

    return answer


def _read_redis_facts_of(host: Host, evidence: Evidence) -> RedisFacts | None:
    """What Redis says about the job; None when that decides nothing."""
    if not _depends_on_redis(evidence):
        return None
    job = evidence.job
    delivery = name_of(job.id, job.dispatch_no) if job.state == "queued" else None
    return read_redis_facts(host, job.queue, delivery, evidence.now)


def _depends_on_redis(evidence: Evidence) -> bool:
    return evidence.is_due and not evidence.job.is_adopted


def _start_looking_again(
    host: Host, deliveries: Mapping[int, int]
) -> Callable[[], Mapping[int, JobEvidence]]:
    """Start to read which of these jobs, with their dispatch numbers, no worker has taken.

    Redis was asked after the session's snapshot, so a job whose delivery is missing may have been claimed
    meanwhile. The jobs are read again outside of the snapshot, beside the rest of the page.
    """
    if not deliveries:
        return dict
    return start_beside(_read_still_queued, host, deliveries).result


def _read_still_queued(host: Host, deliveries: Mapping[int, int]) -> Mapping[int, JobEvidence]:
    columns = sql.load("job_evidence")
    query = f"{columns} WHERE id = ANY (%s::bigint[]) AND state = 'queued' AND reserved_by IS NULL"
    with host.spare.one() as connection:
        cursor = connection.cursor(row_factory=class_row(JobEvidence))
        # To prepare it would take a round trip more.
        jobs = cursor.execute(query, [list(deliveries)], prepare=False).fetchall()
    return {job.id: job for job in jobs if job.dispatch_no == deliveries[job.id]}


def explain_waiting(
    host: Host, session: Session, wanted: JobFilter, now: datetime | StartedRead[datetime]
) -> WaitingExplanation:
    """Return why the jobs of a filter wait, up to 10,000, grouped by the first reason of each.

    The caller has checked the schema, and that the filter searches nothing hidden. Sends a constant number of
    statements, and asks each Redis in two round trips. No text names a partition.
    """
    found = find_waiting(session, wanted, now, shows(host.display))
    now = value_of(now)
    kinds = list_kinds(session, found.ids, now, host.settings)
    with_redis = _ask_redis_about(host, kinds, now)
    kinds = with_redis(add_evidence(session, kinds, now, host.settings))
    return explain_kinds(kinds, wanted, now, is_cut=found.is_cut)


def _ask_redis_about(
    host: Host, kinds: Sequence[WaitingKind], now: datetime
) -> Callable[[Sequence[WaitingKind]], list[WaitingKind]]:
    """Ask Redis about the jobs of these kinds. Returns what adds the answers when the kinds are split."""
    wanted: dict[str, list[str]] = {}
    dispatched: list[WaitingKind] = []
    for kind in kinds:
        if not _depends_on_redis(kind.evidence):
            continue
        ids = wanted.setdefault(kind.evidence.job.queue, [])
        if kind.evidence.job.state == "queued":
            dispatched.append(kind)
            ids += map(name_of, kind.ids, kind.dispatch_nos)
    facts, places = _read_queues(host, wanted, now)
    missing = {
        job_id: number
        for kind in dispatched
        if (found := places.get(kind.evidence.job.queue))
        for job_id, number in zip(kind.ids, kind.dispatch_nos, strict=True)
        if found.place_of(name_of(job_id, number)) not in ("listed", "running")
    }
    find_still = _start_looking_again(host, missing)

    def add(kinds: Sequence[WaitingKind]) -> list[WaitingKind]:
        alone = find_still()
        return [part for kind in kinds for part in _parts_by_place(kind, facts, places, alone)]

    return add


def _parts_by_place(
    kind: WaitingKind,
    facts: Mapping[str, RedisFacts],
    places: Mapping[str, FoundDeliveries],
    alone: Mapping[int, JobEvidence],
) -> Iterator[WaitingKind]:
    """The kind with what Redis says about it.

    The jobs whose deliveries a worker finds, or has taken, are one part: the delivery decides nothing. Each
    of the others is a part alone, since its own time decides.
    """
    job = kind.evidence.job
    if not _depends_on_redis(kind.evidence):
        yield kind
        return
    redis = facts[job.queue]
    if job.state != "queued" or job.queue not in places:
        yield replace(kind, evidence=replace(kind.evidence, redis=redis))
        return
    there = [job_id for job_id in kind.ids if job_id not in alone]
    if there:
        yield kind.only(there, replace(kind.evidence, redis=replace(redis, position=0)))
    for job_id in kind.ids:
        if job_id in alone:
            job = alone[job_id]
            place = places[job.queue].place_of(name_of(job_id, job.dispatch_no))
            parked = replace(redis, is_intermediate=place == "parked")
            yield replace(kind, evidence=replace(kind.evidence, redis=parked)).just(job)


def _read_queues(
    host: Host, wanted: Mapping[str, Sequence[str]], now: datetime
) -> tuple[dict[str, RedisFacts], dict[str, FoundDeliveries]]:
    """Ask the Redis of each queue whether it answers, and where these deliveries are.

    Never raises. Without an answer there are no places.
    """
    facts: dict[str, RedisFacts] = {}
    places: dict[str, FoundDeliveries] = {}
    queues = []
    for name in wanted:
        try:
            queues.append(read_only_queue(broker_of(host).connections, name))
        except ConfigError as error:
            facts[name] = _no_answer(error, now)
    for group in by_redis(queues):
        try:
            with group[0].connection.pipeline() as pipe:
                pipe.exists(WORKERS_SUSPENDED)
                for queue in group:
                    pipe.llen(queue.key)
                suspended, *lengths = pipe.execute()
            for queue, length in zip(group, lengths, strict=True):
                facts[queue.name] = RedisFacts(
                    now, queue_length=length, is_suspended=bool(suspended)
                )
            if named := [queue for queue in group if wanted[queue.name]]:
                places |= find_deliveries_of_queues(named, wanted, now)
        except (RedisError, OSError) as error:
            facts |= {queue.name: _no_answer(error, now) for queue in group}
    return facts, places


def _no_answer(error: Exception, now: datetime) -> RedisFacts:
    return RedisFacts(now, problem=f"no answer ({type(error).__name__})")


def explain_apart(host: Host, subject: int | str) -> AnyExplanation:
    """Explain a job by its id, or `workflow/7` or `batch/7`, in a transaction of its own, without a page.

    When the schema is too old for explanations, that of a job says so, and gives no other reason. Raises
    `UnknownJob`, `UnknownWorkflow`, `UnknownBatch`, `SchemaBehind`, `SchemaAhead`, and what SQLAlchemy raises
    when Postgres does not answer.
    """
    if isinstance(subject, str):
        named = terms.read_subject(subject)
    else:
        named = ("job", subject) if is_id(subject) else None
    if named is None:
        no_subject = UnknownWorkflow if isinstance(subject, str) else UnknownJob
        raise no_subject(
            f"{show_value(subject)} names no job, no workflow and no batch: give the id of a job, "
            "'workflow/7' or 'batch/7'"
        )
    kind, id = named
    schema = host.schema_version()
    with read_snapshot(host.engine.connect(), host.settings.page_timeout_seconds) as read:
        if kind == "job" and schema < OLDEST_SCHEMA:
            return explain_schema(id, schema, read.now)
        host.require_schema()
        explain_it, unknown = _EXPLAIN[kind]
        found = explain_it(host, read.session, id, read.now)
    if found is None:
        raise unknown(
            f"there is no {kind} {id}: a {kind} that has ended is removed when its retention time is over"
        )
    return found


def explain_search_apart(host: Host, wanted: JobFilter) -> WaitingExplanation:
    """Explain why the jobs of a filter wait, in a transaction of its own, without a page.

    Raises what `explain_apart` raises.
    """
    host.require_schema()
    seconds = host.settings.page_timeout_seconds
    with read_snapshot(host.engine.connect(), seconds, PAGE_PLANS) as read:
        return explain_waiting(host, read.session, wanted, read.now)


_EXPLAIN: Mapping[str, tuple[Callable[..., AnyExplanation | None], type[OpsJobsError]]] = {
    "job": (explain, UnknownJob),
    "workflow": (explain_workflow, UnknownWorkflow),
    "batch": (explain_batch, UnknownBatch),
}


def read_redis_facts(host: Host, queue: str, rq_id: str | None, now: datetime) -> RedisFacts:
    """Find a delivery in the Redis of its queue; with `rq_id` None only ask whether Redis answers.

    Never raises.

    Makes at most six reads in one round trip, in the order in which a delivery moves, so that a moving
    delivery is seen. Expired entries of RQ's started registry are ignored: they belong to dead workers.
    """
    try:
        return _read(host, queue, rq_id, now)
    except (RedisError, OSError, ConfigError) as error:
        return _no_answer(error, now)


def _read(host: Host, name: str, rq_id: str | None, now: datetime) -> RedisFacts:
    queue = read_only_queue(broker_of(host).connections, name)
    with queue.connection.pipeline() as pipe:
        pipe.exists(WORKERS_SUSPENDED)
        pipe.llen(queue.key)
        if rq_id is None:
            suspended, length = pipe.execute()
            return RedisFacts(now, queue_length=length, is_suspended=bool(suspended))
        pipe.lpos(queue.key, rq_id)
        pipe.lpos(queue.intermediate_queue_key, rq_id)
        pipe.zrangebyscore(queue.started_job_registry.key, now.timestamp(), "+inf")
        pipe.hget(RQJob.key_for(rq_id), "status")
        suspended, length, position, parked, running, status = pipe.execute()
    return RedisFacts(
        now,
        queue_length=length,
        position=position,
        is_intermediate=parked is not None,
        is_running=rq_id in {StartedJobRegistry.parse_job_id(_text(entry)) for entry in running},
        rq_status=None if status is None else _text(status),
        is_suspended=bool(suspended),
    )


def _text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
