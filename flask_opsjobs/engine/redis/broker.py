"""Defines deliveries, the entries of our jobs in RQ; pushes them to RQ and removes them."""

from __future__ import annotations

import logging
import re
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from itertools import chain, groupby
from typing import Any

from redis import RedisError
from rq import Queue
from rq.command import send_command
from rq.job import Job as RQJob
from rq.job import JobStatus
from rq.serializers import DefaultSerializer, Serializer
from rq.utils import now, utcformat

from ...host import Host
from .connections import RedisConnections, WriteOnlySerializer

_log = logging.getLogger("flask_opsjobs.dispatch")
PREFIX = "opsjobs-"
# The function that a plain RQ worker calls. Ours reads only the id, and performs the job itself.
FUNCTION = "flask_opsjobs.engine.worker.plain_worker.perform_delivery"
# In RQ's record of a worker, it names the worker of ours whose child this is.
WORKER_FIELD = "opsjobs_worker"
_ID = re.compile(r"opsjobs-([0-9]{1,19})-([0-9]{1,19})")
# The largest bigint. Any client of Redis can write a larger id, which Postgres would reject.
_LARGEST = 2**63 - 1
# RQ's time limit is this much longer than ours, so our worker stops an overdue job first and records why.
_OUTER_BOUND_SECONDS = 60
# RQ keeps a failed delivery this long, so that the recall loop sees it; RQ's default is a year.
_FAILURE_TTL_SECONDS = 3600
# The command that asks a worker for a heartbeat. Plain RQ workers ignore commands that they do not know.
_COMMAND = "opsjobs-heartbeat"
# So many deliveries are pushed at once: nobody else is served by Redis meanwhile.
_AT_ONCE = 500
# Writes the records of deliveries and puts their ids into the list of their queue. A script, because each
# argument costs the client more time than it costs Redis: those that all deliveries share are sent once.
_PUSH = """
local shared = {unpack(ARGV, 2, ARGV[1] + 1)}
redis.call('SADD', KEYS[1], KEYS[2])
for at = ARGV[1] + 2, #ARGV, 5 do
    local push, id, key, description, timeout = unpack(ARGV, at, at + 4)
    redis.call('HSET', key, 'description', description, 'timeout', timeout, unpack(shared))
    redis.call(push, KEYS[2], id)
end
return redis.call('LLEN', KEYS[2])
"""


@dataclass(frozen=True)
class Delivery:
    """The fields of a job that RQ gets.

    RQ does not get the arguments, because it would unpickle them and show them on screens.
    """

    id: int
    dispatch_no: int
    queue: str
    task: str
    priority: int
    timeout_seconds: int | None

    @property
    def rq_id(self) -> str:
        """Return the id of the RQ job."""
        return rq_id(self.id, self.dispatch_no)


def rq_id(job_id: int, dispatch_no: int) -> str:
    """Return the RQ id of a delivery."""
    return f"{PREFIX}{job_id}-{dispatch_no}"


def parse_rq_id(text: str) -> tuple[int, int] | None:
    """Return (job id, dispatch number) of an RQ id; None when it is not a delivery of ours."""
    match = _ID.fullmatch(text)
    found = (int(match[1]), int(match[2])) if match else None
    # Only the exact spelling counts: opsjobs-007-1 is not ours.
    return found if found and max(found) <= _LARGEST and rq_id(*found) == text else None


class Broker:
    """Calls RQ for the rest of the package. Methods raise `redis.RedisError` when Redis does not answer."""

    def __init__(self, connections: RedisConnections) -> None:
        self.connections = connections

    def require_answer(self, queue: str) -> None:
        """Ping the Redis of a queue. Raises `EngineUnavailable` with its address when it does not answer."""
        self.connections.require_answer(queue)

    def queue(self, name: str, *, quick: bool = False) -> Queue:
        """Return RQ's queue of this name. It cannot unpickle."""
        wire = self.connections.wire(name, quick=quick)
        return Queue(name, connection=wire.redis, serializer=WriteOnlySerializer(wire.serializer))

    def push(self, deliveries: Iterable[Delivery], *, quick: bool = False) -> dict[str, int]:
        """Push deliveries to RQ, queue by queue, in the given order; priority 0 goes to the front.

        Return how many ids the list of each queue holds now, plain RQ jobs included.

        Commit the rows first: an idle worker claims within 0.1 ms. `quick` limits each call to 0.2 s, for a
        request of the host.
        """
        waiting = {}
        for name, group in groupby(sorted(deliveries, key=_queue_name), key=_queue_name):
            wire = self.connections.wire(name, quick=quick)
            keys = (Queue.redis_queues_keys, Queue.redis_queue_namespace_prefix + name)
            shared = list(chain(*_shared_fields(name, wire.serializer).items()))
            arguments = [_push_arguments(delivery) for delivery in group]
            for start in range(0, len(arguments), _AT_ONCE):
                own = chain(*arguments[start : start + _AT_ONCE])
                waiting[name] = int(
                    wire.redis.eval(_PUSH, len(keys), *keys, len(shared), *shared, *own)
                )
        return waiting

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


def broker_of(host: Host) -> Broker:
    """Return the app's broker, which `init_app` made."""
    assert isinstance(host.broker, Broker)
    return host.broker


def is_ours(rq_id: str) -> bool:
    """Return whether this RQ job is a delivery of ours."""
    return parse_rq_id(rq_id) is not None


def _queue_name(delivery: Delivery) -> str:
    return delivery.queue


def make_hash(delivery: Delivery, serializer: Serializer | None) -> dict[Any, Any]:
    """Return the fields that RQ's enqueue writes and its workers read.

    Leaving out empty fields halves the time.
    """
    return _shared_fields(delivery.queue, serializer) | _own_fields(delivery)


def _shared_fields(queue: str, serializer: Serializer | None) -> dict[str, Any]:
    """Return the fields that are the same for all deliveries that are pushed to a queue now."""
    moment = utcformat(now())
    return {
        "data": _data(serializer or DefaultSerializer),  # type: ignore[arg-type]  # it is hashable
        "status": JobStatus.QUEUED.value,
        "origin": queue,
        "created_at": moment,
        "enqueued_at": moment,
        "result_ttl": 0,
        "failure_ttl": _FAILURE_TTL_SECONDS,
    }


def _push_arguments(delivery: Delivery) -> tuple[Any, ...]:
    """Return what the script takes for a delivery."""
    rq_id, push = delivery.rq_id, "LPUSH" if delivery.priority == 0 else "RPUSH"
    return push, rq_id, RQJob.key_for(rq_id), *_own_fields(delivery).values()


def _own_fields(delivery: Delivery) -> dict[str, Any]:
    # The script takes them in this order.
    limit = delivery.timeout_seconds
    return {
        # RQ's default description is the whole call.
        "description": f"{delivery.task} {delivery.id}",
        "timeout": -1 if limit is None else limit + _OUTER_BOUND_SECONDS,
    }


@cache
def _data(serializer: Serializer) -> bytes:
    # RQ's (function, instance, args, kwargs): the same for all deliveries, because they carry no arguments.
    return zlib.compress(serializer.dumps((FUNCTION, None, (), {})))


def request_heartbeat(broker: Broker, queue: str, worker: str) -> None:
    """Ask the worker for a heartbeat now. Raises `RedisError`. A worker that is not subscribed misses it."""
    send_command(broker.queue(queue, quick=True).connection, worker, _COMMAND)


def try_request_heartbeat(broker: Broker, queue: str, worker: str) -> None:
    """Call `request_heartbeat`, but only log when Redis does not answer: the regular heartbeat follows."""
    try:
        request_heartbeat(broker, queue, worker)
    except RedisError as error:
        _log.info("worker %s was not asked for a heartbeat (%s)", worker, type(error).__name__)
