"""Takes the next RQ job. It never unpickles ours, and it fails a host's job that cannot be read."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from redis import Redis
from rq import Queue
from rq.exceptions import NoSuchJobError
from rq.job import Job as RQJob
from rq.job import JobStatus
from rq.utils import as_text, current_timestamp

from ..redis.broker import parse

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


def make_job(rq_id: str, queue: Queue, worker: Any) -> RQJob | None:
    """Return RQ's job of this id; None when RQ has it no more.

    A delivery of ours is not read from Redis at all.

    A job of the host that cannot be read is failed as RQ would do it, but without a work horse; returns None
    then.
    """
    if parse(rq_id) is not None:
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
