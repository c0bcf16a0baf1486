"""Finds orphans: started plain jobs whose worker is gone and of which RQ has heard nothing for 2 min."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from psycopg.rows import class_row
from redis import Redis
from rq import Queue
from rq.job import Job as RQJob
from rq.job import JobStatus
from rq.utils import as_text
from rq.worker import BaseWorker

from ...core import sql
from ...core.db import Connection
from .places import RedisPlace

# So many started jobs of a place are looked at at once.
_AT_ONCE = 500
# RQ's own clean-up, by any worker of the queue, comes within minutes of the expiry.
_GRACE_SECONDS = 120.0


@dataclass(frozen=True)
class StartedJob:
    """A plain job that has been started for a while, as it is stored."""

    id: int
    queue: str
    task: str
    rq_id: str
    started_at: datetime
    execution_id: str | None
    worker: str | None


@dataclass(frozen=True)
class Orphan:
    """A started job of which RQ heard last before `heard_until`, and the worker that is gone."""

    job: StartedJob
    worker: str
    heard_until: datetime | None


def find_orphan_jobs(connection: Connection, place: RedisPlace, now: datetime) -> Sequence[Orphan]:
    """The orphans among all started jobs of a place. Raises `RedisError`.

    A job is none while RQ has a key of its worker: a SimpleWorker sends no heartbeats during a job, but its
    key lives as long as the job may run.
    """
    found: list[Orphan] = []
    after = 0
    while jobs := _list_started(connection, place, after, now):
        found += _without_worker(place.redis, _find_silent(place.redis, jobs, now))
        after = jobs[-1].id
    return found


def _list_started(
    connection: Connection, place: RedisPlace, after: int, now: datetime
) -> Sequence[StartedJob]:
    values = {"place": place.name, "now": now, "after": after, "limit": _AT_ONCE}
    with connection.cursor(row_factory=class_row(StartedJob)) as cursor:
        return cursor.execute(sql.load("list_started_adopted"), values).fetchall()


def _find_silent(
    redis: Redis, jobs: Sequence[StartedJob], now: datetime
) -> list[tuple[StartedJob, str, float | None]]:
    """The jobs that RQ calls started, and whose run has expired: each with the worker that RQ names."""
    with redis.pipeline(transaction=False) as pipe:
        for job in jobs:
            pipe.hmget(RQJob.key_for(job.rq_id), "status", "worker_name")
            registry = Queue(job.queue, connection=redis).started_job_registry.key
            pipe.zscore(registry, f"{job.rq_id}:{job.execution_id}")
        answers = pipe.execute()
    found = []
    for job, (status, worker), score in zip(jobs, answers[::2], answers[1::2], strict=True):
        is_started = status is not None and as_text(status) == JobStatus.STARTED.value
        if is_started and (score is None or score < now.timestamp() - _GRACE_SECONDS):
            found.append((job, as_text(worker) if worker else job.worker or "", score))
    return found


def _without_worker(
    redis: Redis, silent: Sequence[tuple[StartedJob, str, float | None]]
) -> list[Orphan]:
    with redis.pipeline(transaction=False) as pipe:
        for _, worker, _ in silent:
            pipe.exists(BaseWorker.redis_worker_namespace_prefix + worker)
        alive = pipe.execute()
    return [
        Orphan(job, worker, None if score is None else datetime.fromtimestamp(score, UTC))
        for (job, worker, score), is_alive in zip(silent, alive, strict=True)
        if not is_alive
    ]
