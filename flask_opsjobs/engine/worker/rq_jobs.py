"""Reads plain RQ jobs, and fails those that cannot be read."""

from __future__ import annotations

import logging

from rq import Queue
from rq.exceptions import NoSuchJobError
from rq.job import Job as RQJob
from rq.job import JobStatus
from rq.utils import current_timestamp
from rq.worker.base import BaseWorker

_log = logging.getLogger("flask_opsjobs.worker")
_FAILURE_TTL_SECONDS = 86_400


def fetch_job(rq_id: str, queue: Queue, worker: BaseWorker) -> RQJob | None:
    """Return RQ's job of this id; None when RQ has it no more, or when it cannot be read and was failed."""
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
    """Fail a job of the host that cannot be read, as RQ would, but without a process for it."""
    _log.error(
        "RQ job %s on queue %s cannot be read (%s) and was failed",
        rq_id,
        queue.name,
        type(error).__name__,
    )
    until = current_timestamp() + _FAILURE_TTL_SECONDS
    with queue.connection.pipeline() as pipe:
        pipe.hset(RQJob.key_for(rq_id), mapping={"status": JobStatus.FAILED.value})
        pipe.expire(RQJob.key_for(rq_id), _FAILURE_TTL_SECONDS)
        pipe.zadd(queue.failed_job_registry.key, {rq_id: until})
        pipe.lrem(queue.intermediate_queue_key, 0, rq_id)
        pipe.execute()
