"""Does RQ's bookkeeping for a worker: takes jobs from RQ's lists, and records their start and end in RQ."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from redis import Redis, RedisError
from rq import Queue
from rq.exceptions import NoSuchJobError
from rq.executions import Execution
from rq.job import Job as RQJob
from rq.job import JobStatus
from rq.utils import as_text, current_timestamp
from rq.worker import WorkerStatus
from rq.worker.base import BaseWorker

from ..redis.broker import parse_rq_id

_log = logging.getLogger("flask_opsjobs.worker")
# A pop blocks briefly, so that a stop is noticed between pops: a signal inside a pop would lose its delivery.
_BLOCK_SECONDS = 1


def pop(queues: Sequence[Queue], redis: Redis, *, block: bool) -> tuple[str, Queue] | None:
    """Return the next RQ id and its queue, or None.

    With only one queue the id moves to the intermediate list.
    """
    if len(queues) == 1:
        queue = queues[0]
        args = (queue.key, queue.intermediate_queue_key)
        found: Any = redis.blmove(*args, _BLOCK_SECONDS) if block else redis.lmove(*args)
        return (as_text(found), queue) if found is not None else None
    by_key = {queue.key: queue for queue in queues}
    if block:
        popped: Any = redis.blpop(list(by_key), _BLOCK_SECONDS)
        return None if popped is None else (as_text(popped[1]), by_key[as_text(popped[0])])
    for key, queue in by_key.items():
        single: Any = redis.lpop(key)
        if single is not None:
            return as_text(single), queue
    return None


def make_job(rq_id: str, queue: Queue, worker: BaseWorker) -> RQJob | None:
    """Return RQ's job of this id; None when RQ has it no more, or when it cannot be read.

    A delivery of ours is not read from Redis at all. A job of the host that cannot be read is failed as RQ
    would do it, but without a work horse.
    """
    if parse_rq_id(rq_id) is not None:
        job = RQJob(id=rq_id, connection=worker.connection, serializer=worker.serializer)
        job.origin = queue.name
        return job
    try:
        found: RQJob = worker.job_class.fetch(
            rq_id, connection=worker.connection, serializer=worker.serializer
        )
        return found
    except NoSuchJobError:
        return None
    except Exception as error:
        fail_unreadable(rq_id, queue, error)
        return None


def fail_unreadable(rq_id: str, queue: Queue, error: Exception) -> None:
    """Fail a job of the host that cannot be read, as RQ would, but without a work horse."""
    _log.error(
        "RQ job %s on queue %s cannot be read (%s) and was failed",
        rq_id,
        queue.name,
        type(error).__name__,
    )
    ttl = 86_400
    with queue.connection.pipeline() as pipe:
        pipe.hset(RQJob.key_for(rq_id), mapping={"status": JobStatus.FAILED.value})
        pipe.expire(RQJob.key_for(rq_id), ttl)
        pipe.zadd(queue.failed_job_registry.key, {rq_id: current_timestamp() + ttl})
        pipe.lrem(queue.intermediate_queue_key, 0, rq_id)
        pipe.execute()


class RQBookkeeping:
    """RQ's records of a worker that performs our jobs, for RQ's tools.

    Without Redis a record is lost, never a job.
    """

    def __init__(self, worker: BaseWorker) -> None:
        self._worker = worker

    def begin(self, job: RQJob, queue: Queue) -> Execution | None:
        """Record the start: add the execution, set the worker to busy, leave the intermediate list.

        Returns None when Redis did not answer.
        """
        worker = self._worker
        try:
            with worker.connection.pipeline() as pipe:
                ttl = worker.job_monitoring_interval + 60
                execution = Execution.create(job, ttl, pipeline=pipe, worker_name=worker.name)
                worker.executions[execution.id] = execution
                pipe.hset(
                    job.key, mapping={"status": JobStatus.STARTED.value, "worker_name": worker.name}
                )
                pipe.lrem(queue.intermediate_queue_key, 1, job.id)
                pipe.hset(worker.key, "state", WorkerStatus.BUSY.value)
                pipe.execute()
            return execution
        except RedisError as error:
            _log.warning("RQ has no record of the start of %s: %s", job.id, type(error).__name__)
            return None

    def keep(self, job: RQJob, execution: Execution | None) -> None:
        """Extend the expiry of the execution while the job runs."""
        if execution is None:
            return
        try:
            self._worker.maintain_heartbeats(job, execution)
        except RedisError as error:
            _log.warning("RQ has no record of a heartbeat of %s: %s", job.id, type(error).__name__)

    def end(
        self, job: RQJob, queue: Queue, execution: Execution | None, *, is_success: bool
    ) -> None:
        """Record the end: remove the delivery and its execution from RQ, count it, set the worker to idle."""
        worker = self._worker
        try:
            with worker.connection.pipeline() as pipe:
                if execution is not None:
                    execution.delete(job=job, pipeline=pipe)
                # Repeated here, because `begin` may have failed.
                pipe.lrem(queue.intermediate_queue_key, 1, job.id)
                pipe.delete(job.key)
                pipe.hincrby(
                    worker.key, "successful_job_count" if is_success else "failed_job_count", 1
                )
                pipe.hset(worker.key, "state", WorkerStatus.IDLE.value)
                worker.heartbeat(pipeline=pipe)
                pipe.execute()
        except RedisError as error:
            _log.warning("RQ has no record of the end of %s: %s", job.id, type(error).__name__)
        finally:
            if execution is not None:
                worker.executions.pop(execution.id, None)
