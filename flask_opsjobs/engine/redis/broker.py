"""Defines deliveries, the entries of our jobs in RQ; pushes them to RQ and removes them."""

from __future__ import annotations

import logging
import re
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import chain, groupby
from typing import Any

from redis import ConnectionPool, RedisError
from rq import Queue
from rq.command import send_command, send_shutdown_command
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
# The command that tells a worker that one of its jobs shall stop. Plain RQ workers ignore commands that they
# do not know. Workers of older versions send a heartbeat, which tells them the same.
STOP_ANNOUNCED = "opsjobs-heartbeat"
# The command that tells a worker of ours to stop, and after how many seconds it kills what still runs.
STOP_WITHIN = "opsjobs-stop"
# So many deliveries are pushed at once: nobody else is served by Redis meanwhile.
_AT_ONCE = 500
# The fields of all deliveries, at any time.
_FIXED_FIELDS = {
    "status": JobStatus.QUEUED.value,
    "result_ttl": 0,
    "failure_ttl": _FAILURE_TTL_SECONDS,
}
# Writes the records of deliveries and puts their ids into the list of their queue. A script, because each
# argument costs the client more time than it costs Redis: it gets none twice, and none that never changes.
_PUSH = f"""
local data, origin, moment = unpack(ARGV, 1, 3)
redis.call('SADD', KEYS[1], KEYS[2])
local waiting
for at = 4, #ARGV, 5 do
    local push, id, key, description, timeout = unpack(ARGV, at, at + 4)
    redis.call('HSET', key, 'data', data, 'origin', origin, 'created_at', moment, 'enqueued_at', moment,
        'description', description, 'timeout', timeout,
        {", ".join(f"'{name}', '{value}'" for name, value in _FIXED_FIELDS.items())})
    waiting = redis.call(push, KEYS[2], id)
end
return waiting
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


class SentPush:
    """A push that was sent, and whose answer may not have been read. Used by one thread at a time.

    It bypasses the client, which waits for each answer, and needs more time for a call than Redis does.
    """

    def __init__(
        self,
        queue: str,
        deliveries: Sequence[Delivery],
        pool: ConnectionPool,
        command: bytes,
    ) -> None:
        """Send the command. Raises `RedisError`."""
        self.queue = queue
        self.deliveries = deliveries
        self._pool = pool
        self._connection = pool.get_connection()
        self._answer: int | RedisError | None = None
        try:
            self._connection.send_packed_command([command])
        except BaseException:
            pool.release(self._connection)
            raise

    def has_answer(self) -> bool:
        """Return whether `read` returns or raises at once. Does not wait."""
        try:
            return self._answer is not None or bool(self._connection.can_read())
        except RedisError:
            return True

    def read(self) -> int:
        """Wait for the answer: how many ids the list of the queue holds now, those of plain RQ jobs included.

        Raises `RedisError` when Redis did not take the deliveries. A second call does the same at once.
        """
        if self._answer is None:
            try:
                self._answer = int(self._connection.read_response())
            except RedisError as error:
                self._answer = error
            finally:
                self._pool.release(self._connection)
        if isinstance(self._answer, RedisError):
            raise self._answer
        return self._answer

    def give_up(self) -> None:
        """Give the connection back without its answer. Does nothing after `read`."""
        if self._answer is None:
            self._answer = RedisError("the answer was given up")
            self._connection.disconnect()
            self._pool.release(self._connection)


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

    def push(self, deliveries: Iterable[Delivery], *, quick: bool = False) -> None:
        """Push deliveries to RQ, queue by queue, in the given order; priority 0 goes to the front.

        Commit the rows first: an idle worker claims within 0.1 ms. `quick` limits each wait for Redis to
        0.2 s, for a request of the host.
        """
        if (sent := self.send(deliveries, quick=quick)) is not None:
            sent.read()

    def send(self, deliveries: Iterable[Delivery], *, quick: bool = False) -> SentPush | None:
        """Push as `push`, but do not wait for the last answer: the caller reads it, sooner or later.

        Many deliveries, or those of several queues, need several commands. Each of them but the last is
        answered before the next is sent, so they keep their order. None when there is nothing to push.
        """
        sent = None
        for name, group in groupby(sorted(deliveries, key=_queue_name), key=_queue_name):
            wire = self.connections.wire(name, quick=quick)
            keys = (Queue.redis_queues_keys, Queue.redis_queue_namespace_prefix + name)
            shared = (*keys, make_data(wire.serializer), name, utcformat(now()))
            rest = list(group)
            while rest:
                if sent is not None:
                    sent.read()
                some, rest = rest[:_AT_ONCE], rest[_AT_ONCE:]
                own = chain.from_iterable(map(_push_arguments, some))
                command = _pack_push(*shared, *own)
                sent = SentPush(name, some, wire.redis.connection_pool, command)
        return sent

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
                pipe.delete(*keys_of_delivery(queue, rq_id))
            pipe.execute()


def keys_of_delivery(queue: Queue, rq_id: str) -> tuple[str, str]:
    """Return the keys of a delivery in RQ: its hash, and when RQ's maintenance saw it popped first."""
    return RQJob.key_for(rq_id), queue.intermediate_queue.get_first_seen_key(rq_id)


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
    """Return the fields that RQ's enqueue writes and its workers read, as `push` writes them.

    Leaving out empty fields halves the time.
    """
    moment = utcformat(now())
    return {
        "data": make_data(serializer),
        "origin": delivery.queue,
        "created_at": moment,
        "enqueued_at": moment,
        **_own_fields(delivery),
        **_FIXED_FIELDS,
    }


def _pack_push(*arguments: bytes | str | int) -> bytes:
    """Return the call of the script in Redis' protocol. redis-py needs several times as long for it."""
    return b"*%d\r\n%b%b" % (
        len(_PUSH_HEAD) + len(arguments),
        _PACKED_PUSH_HEAD,
        b"".join(map(_pack, arguments)),
    )


def _pack(argument: bytes | str | int) -> bytes:
    raw = argument if isinstance(argument, bytes) else str(argument).encode()
    return b"$%d\r\n%b\r\n" % (len(raw), raw)


_PUSH_HEAD: tuple[str | int, ...] = ("EVAL", _PUSH, 2)
_PACKED_PUSH_HEAD = b"".join(map(_pack, _PUSH_HEAD))


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


def make_data(serializer: Serializer | None) -> bytes:
    """The field `data` of a delivery, as this serializer of a queue writes it."""
    return _data_by(serializer or DefaultSerializer)  # type: ignore[arg-type]  # it is hashable


@cache
def _data_by(serializer: Serializer) -> bytes:
    # RQ's (function, instance, args, kwargs): the same for all deliveries, because they carry no arguments.
    return zlib.compress(serializer.dumps((FUNCTION, None, (), {})))


def announce_stop(broker: Broker, queue: str, worker: str) -> None:
    """Tell the worker that one of its jobs shall stop. Raises `RedisError`.

    A worker that is not subscribed misses it.
    """
    send_command(broker.queue(queue, quick=True).connection, worker, STOP_ANNOUNCED)


def stop_worker(broker: Broker, queue: str, worker: str, grace: int | None) -> None:
    """Tell a worker to stop: within `grace` seconds one of ours, without it as RQ does. Raises `RedisError`.

    A worker that is not subscribed misses it.
    """
    connection = broker.queue(queue, quick=True).connection
    if grace is None:
        send_shutdown_command(connection, worker)
    else:
        send_command(connection, worker, STOP_WITHIN, grace=grace)


def try_announce_stop(broker: Broker, queue: str, worker: str) -> None:
    """Call `announce_stop`, but only log when Redis does not answer: the next heartbeat tells it too."""
    try:
        announce_stop(broker, queue, worker)
    except RedisError as error:
        _log.info("worker %s was not told to stop a job (%s)", worker, type(error).__name__)
