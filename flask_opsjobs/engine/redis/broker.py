"""Pushes deliveries to RQ and removes them, on the Redis of each queue."""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from functools import cache
from itertools import groupby
from typing import Any

from rq import Queue
from rq.job import Job as RQJob
from rq.job import JobStatus
from rq.serializers import DefaultSerializer
from rq.utils import now, utcformat

from .connections import RedisConnections, write_only
from .delivery import FUNCTION, Delivery, parse

# RQ's time limit comes this much later than ours: the worker stops an overdue job first and records why.
_OUTER_BOUND_SECONDS = 60
# RQ keeps a failed delivery this long, so that the recall loop sees it; RQ's default is a year.
_FAILURE_TTL_SECONDS = 3600


class Broker:
    """RQ for the rest of the package. Every method raises `redis.RedisError` when Redis does not answer."""

    def __init__(self, connections: RedisConnections) -> None:
        self.connections = connections

    def queue(self, name: str, *, quick: bool = False) -> Queue:
        """Return RQ's queue of this name. It cannot unpickle."""
        wire = self.connections.wire(name, quick=quick)
        return Queue(name, connection=wire.redis, serializer=write_only(wire.serializer))

    def push(self, deliveries: Iterable[Delivery], *, quick: bool = False) -> None:
        """Push deliveries to RQ, one pipeline per queue, in the given order; priority 0 goes to the front.

        Commit the rows first: an idle worker claims within 0.1 ms. `quick` limits each call to 0.2 s, for a
        request of the host. No MULTI is needed: the hash is written before its id, and if the connection
        breaks in between, the recall loop recalls the job.
        """
        for name, group in groupby(sorted(deliveries, key=_queue_name), key=_queue_name):
            wire = self.connections.wire(name, quick=quick)
            key = Queue.redis_queue_namespace_prefix + name
            with wire.redis.pipeline(transaction=False) as pipe:
                pipe.sadd(Queue.redis_queues_keys, key)
                for delivery in group:
                    pipe.hset(
                        RQJob.key_for(delivery.rq_id), mapping=_hash(delivery, wire.serializer)
                    )
                    push = pipe.lpush if delivery.priority == 0 else pipe.rpush
                    push(key, delivery.rq_id)
                pipe.execute()

    def forget(self, queue_name: str, rq_ids: Iterable[str], *, quick: bool = False) -> None:
        """Remove deliveries and their hashes from RQ: from list, intermediate list and failed registry."""
        ids = list(rq_ids)
        if not ids:
            return
        queue = self.queue(queue_name, quick=quick)
        with queue.connection.pipeline() as pipe:
            for rq_id in ids:
                pipe.lrem(queue.key, 0, rq_id)
                pipe.lrem(queue.intermediate_queue_key, 0, rq_id)
                pipe.zrem(queue.failed_job_registry.key, rq_id)
                pipe.delete(RQJob.key_for(rq_id))
            pipe.execute()


def is_ours(rq_id: str) -> bool:
    """Return whether this RQ job is a delivery of ours."""
    return parse(rq_id) is not None


def _queue_name(delivery: Delivery) -> str:
    return delivery.queue


def _hash(delivery: Delivery, serializer: Any) -> dict[Any, Any]:
    """Return the fields that RQ's enqueue writes and its workers read.

    Leaving out empty fields halves the time.
    """
    moment = utcformat(now())
    limit = delivery.timeout_seconds
    return {
        "data": _data(serializer or DefaultSerializer),
        "status": JobStatus.QUEUED.value,
        "origin": delivery.queue,
        # RQ's default description is the whole call.
        "description": f"{delivery.task} {delivery.id}",
        "created_at": moment,
        "enqueued_at": moment,
        "timeout": -1 if limit is None else limit + _OUTER_BOUND_SECONDS,
        "result_ttl": 0,
        "failure_ttl": _FAILURE_TTL_SECONDS,
    }


@cache
def _data(serializer: Any) -> bytes:
    # RQ's (function, instance, args, kwargs): the same for all deliveries, because they carry no arguments.
    return zlib.compress(serializer.dumps((FUNCTION, None, (), {})))
