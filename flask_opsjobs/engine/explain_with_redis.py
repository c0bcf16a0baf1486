"""Explains why a job, a workflow or a batch has not ended, and looks up deliveries in Redis."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from redis import RedisError
from rq.job import Job as RQJob
from rq.registry import StartedJobRegistry
from rq.suspension import WORKERS_SUSPENDED
from sqlalchemy.orm import Session

from ..core.db import OLDEST_SCHEMA, is_id
from ..core.reading import read_snapshot
from ..core.redis_facts import RedisFacts
from ..core.words import show_value
from ..errors import ConfigError, OpsJobsError, UnknownBatch, UnknownJob, UnknownWorkflow
from ..explain.evidence import Evidence, FrontierStep, JobEvidence
from ..explain.explain import (
    explain_batch_evidence,
    explain_evidence,
    explain_run,
    explain_schema,
)
from ..explain.queries import find_batch_evidence, find_evidence, find_run_evidence
from ..explain.reason_kinds import (
    AnyExplanation,
    BatchExplanation,
    Explanation,
    WorkflowExplanation,
)
from ..host import Host
from ..jobs.search import terms
from .redis.broker import broker_of
from .redis.broker import rq_id as name_of
from .redis.connections import read_only_queue


def explain(
    host: Host, session: Session, job_id: int, now: datetime, *, names_partition: bool = True
) -> Explanation | None:
    """Return why the job is not running; None when there is no such job. The caller has checked the schema.

    Reads through `session`, then asks Redis once, for at most 0.2 s, when the answer depends on it. Without
    `names_partition` the text leaves out the partition of the limiter, which is a value of the job's
    arguments.
    """
    evidence = find_evidence(session, job_id, now, host.settings)
    if evidence is None:
        return None
    evidence = _with_redis(host, evidence, names_partition=names_partition)
    if evidence.step is not None and evidence.step.frontier:
        frontier = _frontier_with_redis(host, evidence.step.frontier)
        evidence = replace(evidence, step=replace(evidence.step, frontier=frontier))
    return explain_evidence(evidence)


def explain_workflow(
    host: Host, session: Session, run: int, now: datetime
) -> WorkflowExplanation | None:
    """Return why the run has not ended; None when there is no such run. The caller has checked the schema.

    Reads as `explain` does. No text names a partition.
    """
    found = find_run_evidence(session, run, now, host.settings)
    if found is None:
        return None
    return explain_run(replace(found, frontier=_frontier_with_redis(host, found.frontier)), now)


def explain_batch(host: Host, session: Session, id: int, now: datetime) -> BatchExplanation | None:
    """Return why the batch has not ended; None when there is no such batch.

    The caller has checked the schema. Reads as `explain` does. No text names a partition.
    """
    found = find_batch_evidence(session, id, now, host.settings)
    if found is None:
        return None
    members = [_with_redis(host, each, names_partition=False) for each in found.members]
    return explain_batch_evidence(replace(found, members=members))


def _frontier_with_redis(host: Host, frontier: Sequence[FrontierStep]) -> list[FrontierStep]:
    """The steps with what Redis says about them. Their partitions are never named."""
    return [
        replace(step, evidence=_with_redis(host, step.evidence, names_partition=False))
        for step in frontier
    ]


def _with_redis(host: Host, evidence: Evidence, *, names_partition: bool) -> Evidence:
    if evidence.limit is not None:
        evidence = replace(evidence, limit=replace(evidence.limit, is_named=names_partition))
    if evidence.is_due and not evidence.job.is_adopted:
        job = evidence.job
        delivery = name_of(job.id, job.dispatch_no) if job.state == "queued" else None
        evidence = replace(
            evidence, redis=read_redis_facts(host, job.queue, delivery, evidence.now)
        )
        if evidence.is_lost and evidence.redis is not None and not _is_still_queued(host, job):
            # A worker claimed the job after the session's snapshot and before Redis was asked.
            evidence = replace(evidence, redis=replace(evidence.redis, is_running=True))
    return evidence


def _is_still_queued(host: Host, job: JobEvidence) -> bool:
    """Read the job again outside the session's snapshot: if it has moved on, its delivery is not lost."""
    query = "SELECT state = 'queued' AND dispatch_no = %s FROM opsjobs.jobs WHERE id = %s"
    with host.spare.one() as connection:
        row = connection.execute(query, [job.dispatch_no, job.id]).fetchone()
    return row is not None and bool(row[0])


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
        return RedisFacts(now, problem=f"no answer ({type(error).__name__})")


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
