"""Asks RQ to retry, cancel, discard or delete a plain job, by RQ's own functions, without its payload.

Whoever runs the job may act at the same moment. So what is asked is checked against RQ's record right before,
and under WATCH where RQ's function allows it. Nothing is asked twice: the adopting loop sees what became of
it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from redis import Redis, RedisError, WatchError
from redis.client import Pipeline
from rq import Queue
from rq.command import PUBSUB_CHANNEL_TEMPLATE, send_command
from rq.exceptions import InvalidJobOperation, NoSuchJobError
from rq.executions import Execution, ExecutionRegistry
from rq.group import Group
from rq.job import Job as RQJob
from rq.job import JobStatus
from rq.job_lifecycle import record_job_failure
from rq.rate_limit import release_slot
from rq.registry import BaseRegistry
from rq.utils import as_text, parse_composite_key
from rq.worker import BaseWorker
from typing_extensions import override

from ...actions.effects import AskRq
from ...host import Host
from ..redis.connections import WriteOnlySerializer
from .places import find_redis

# These fields of a job's hash are neither read nor written, so they may have any size and any content.
_PAYLOAD = frozenset(("data", "meta", "result", "exc_info"))
_DISCARDED = "Discarded by an operator: the worker that ran it is gone."
_RETRIED = "Retried by an operator: the worker that ran it is gone."
_SERIALIZER = WriteOnlySerializer()


class RqRefused(Exception):
    """The job in RQ does not allow it now, and nothing was changed. The text says why."""


@dataclass(frozen=True)
class RqJobName:
    """A job of one Redis. RQ uses an id again after the job's end, so `created_at` belongs to its name."""

    rq_id: str
    created_at: datetime | None


def ask_rq(redis: Redis, what: str, name: RqJobName) -> None:
    """Ask for one of `retry`, `cancel`, `discard`, `delete`.

    Raises `RqRefused`, and `RedisError` when Redis does not answer: then RQ may have been asked or not.
    """
    try:
        job = _read(redis, name)
        _ASK[what](redis, job)
    except NoSuchJobError:
        if what != "delete":
            raise RqRefused("RQ has no record of it any more") from None
    except (InvalidJobOperation, ValueError):
        # RQ raises a ValueError when a run ends while it reads the runs of the job.
        raise RqRefused("RQ has moved it meanwhile") from None


def ask_of_place(host: Host, question: AskRq) -> None:
    """Ask the RQ of a place. Raises as `ask_rq` does; the text of `RqRefused` is a whole sentence."""
    redis = find_redis(host, question.place, question.queue)
    try:
        if redis is None:
            raise RqRefused(f"this app knows no Redis {question.place}")
        ask_rq(redis, question.what, RqJobName(question.rq_id, question.created_at))
    except RqRefused as refused:
        raise RqRefused(f"RQ did not {question.what} job {question.job}: {refused}") from None


class _JobWithoutPayload(RQJob):
    """RQ's job, whose payload stays in Redis as it is."""

    @override
    def refresh(self) -> None:
        all_names: Any = self.connection.hkeys(self.key)
        names = [name for name in all_names if name not in _PAYLOAD_NAMES]
        found: Any = self.connection.hmget(self.key, names) if names else []
        self.restore(dict(zip(names, found, strict=True)))

    @override
    def restore(self, raw_data: Mapping[bytes, bytes]) -> None:
        if not raw_data:
            raise NoSuchJobError(f"no such job: {self.key}")
        kept = {key: raw for key, raw in raw_data.items() if key not in _PAYLOAD_NAMES}
        super().restore({**kept, b"data": b""})

    @override
    def to_dict(self, include_meta: bool = True, include_result: bool = True) -> dict[str, Any]:
        fields = super().to_dict(include_meta=include_meta, include_result=include_result)
        # RQ clears the old error when a job is queued again.
        return {key: fields[key] for key in fields if key not in _PAYLOAD or key == "exc_info"}


_PAYLOAD_NAMES = frozenset(name.encode() for name in _PAYLOAD)


def _read(redis: Redis, name: RqJobName) -> RQJob:
    try:
        job = _JobWithoutPayload(name.rq_id, redis, _SERIALIZER)
        job.refresh()
    except (RedisError, NoSuchJobError):
        raise
    except Exception as error:  # whatever its fields hold
        raise RqRefused(f"RQ's record of it cannot be read ({type(error).__name__})") from None
    if name.created_at is not None and job.created_at != name.created_at:
        raise NoSuchJobError("it is another job of this id")
    return job


def _queue(job: RQJob) -> Queue:
    return Queue(
        job.origin, connection=job.connection, job_class=_JobWithoutPayload, serializer=_SERIALIZER
    )


# --- cancel


def _cancel(redis: Redis, job: RQJob) -> None:
    """Stop a started job, or cancel one that waits."""
    if job.get_status(refresh=False) is JobStatus.STARTED:
        _stop(redis, job)
    elif job.has_rate_limit:
        _require_waiting(job)
        job.cancel()  # RQ cancels such a job in no transaction of ours
    else:
        _change_unless_moved(redis, job, lambda pipe: job.cancel(pipe), _require_waiting)


def _stop(redis: Redis, job: RQJob) -> None:
    """Send RQ's command. A worker that does not run the job ignores it."""
    worker = job.worker_name or ""
    ((_, listeners),) = redis.pubsub_numsub(PUBSUB_CHANNEL_TEMPLATE % worker)
    if not listeners:
        why = "RQ's record names no worker" if not worker else f"worker {worker} hears no commands"
        raise RqRefused(f"{why}, so nobody can stop it")
    send_command(redis, worker, "stop-job", job_id=job.id)


def _require_waiting(job: RQJob) -> None:
    status = job.get_status(refresh=False)
    if status in (JobStatus.FINISHED, JobStatus.FAILED, JobStatus.STOPPED, JobStatus.CANCELED):
        raise RqRefused(f"RQ says that it is {status.value} already")
    if status is JobStatus.STARTED:
        raise RqRefused("a worker has started it meanwhile")


# --- retry


def _retry(redis: Redis, job: RQJob) -> None:
    """Queue the job again, from the registry that holds it."""
    status = job.get_status(refresh=False)
    if status is JobStatus.STARTED:
        _fail_orphan(redis, job, _RETRIED)
        status = JobStatus.FAILED
    _registry(job, status).requeue(job)


def _registry(job: RQJob, status: JobStatus) -> BaseRegistry:
    queue = _queue(job)
    registries: dict[JobStatus, BaseRegistry] = {
        JobStatus.FAILED: queue.failed_job_registry,
        JobStatus.STOPPED: queue.failed_job_registry,
        JobStatus.CANCELED: queue.canceled_job_registry,
        JobStatus.SCHEDULED: queue.scheduled_job_registry,
    }
    if status not in registries:
        raise RqRefused(f"RQ says that it is {status.value}")
    return registries[status]


# --- discard


def _discard(redis: Redis, job: RQJob) -> None:
    """Fail a started job whose worker is gone, and let go what waits for it in any case."""
    _fail_orphan(redis, job, _DISCARDED)
    _queue(job).enqueue_dependents(job, refresh_job_status=False)


def _fail_orphan(redis: Redis, job: RQJob, words: str) -> None:
    """Do what RQ does with an abandoned job, without its callbacks: they are code of the host."""
    executions = _require_orphan(redis, job)

    def fail(pipe: Pipeline) -> None:
        for execution in executions:
            execution.delete(job, pipe)
        pipe.delete(ExecutionRegistry(job.id, redis).key)
        record_job_failure(job, words, pipe)

    _change_unless_moved(redis, job, fail, _require_started)
    release_slot(job)


def _require_orphan(redis: Redis, job: RQJob) -> list[Execution]:
    """Return the executions of which RQ heard nothing in time, of a job whose worker is gone."""
    _require_started(job)
    worker = job.worker_name or ""
    if redis.exists(BaseWorker.redis_worker_namespace_prefix + worker):
        raise RqRefused(f"worker {worker} is alive, as far as RQ knows: cancel it instead")
    now = float(redis.time()[0])
    registry = job.started_job_registry
    own: Any = redis.zrange(ExecutionRegistry(job.id, redis).key, 0, -1)
    executions = [Execution(as_text(id), job.id, redis, worker) for id in own]
    scores: Any = (
        redis.zmscore(registry.key, [one.composite_key for one in executions]) if own else []
    )
    if any(score is not None and score > now for score in scores):
        raise RqRefused("RQ heard of its run a moment ago")
    known = {one.id for one in executions}
    expired: Any = redis.zrangebyscore(registry.key, 0, now)
    for job_id, execution_id in map(parse_composite_key, map(as_text, expired)):
        if job_id == job.id and execution_id not in known:
            executions.append(Execution(execution_id, job.id, redis, worker))
    return executions


def _require_started(job: RQJob) -> None:
    status = job.get_status(refresh=False)
    if status is not JobStatus.STARTED:
        raise RqRefused(f"RQ says that it is {status.value}")


# --- delete


def _delete(redis: Redis, job: RQJob) -> None:
    if job.get_status(refresh=False) is JobStatus.STARTED:
        raise RqRefused("a worker has started it meanwhile")
    if job.group_id and not redis.exists(Group.get_key(job.group_id)):
        job.group_id = None  # RQ would not delete the job without it
    job.delete()


def _change_unless_moved(
    redis: Redis,
    job: RQJob,
    change: Callable[[Pipeline], Any],
    require: Callable[[RQJob], None],
) -> None:
    """Change a job in one transaction, if its status allows that. Who moves it meanwhile comes first."""
    with redis.pipeline() as pipe:
        while True:
            try:
                pipe.watch(job.key)
                job.get_status()
                require(job)
                pipe.multi()
                change(pipe)
                pipe.execute()
                return
            except WatchError:
                continue


_ASK: Mapping[str, Callable[[Redis, RQJob], None]] = {
    "retry": _retry,
    "cancel": _cancel,
    "discard": _discard,
    "delete": _delete,
}
