"""Reads Redis for pages and explanations with a client that refuses every command that is not a read.

It remembers which Redis did not answer, so that the next page does not wait for it again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from redis import Redis, RedisError
from redis.client import Pipeline
from redis.exceptions import ConnectionError as NoConnection
from redis.exceptions import TimeoutError as NoAnswer
from rq import Queue

from ...core.answering import Answering
from ...core.redis_facts import SilentRedis
from .broker import Broker
from .connections import write_only
from .reads import by_redis, redis_name_of

# The allowed commands. Any other name is refused, including commands that later versions of Redis add.
READS = frozenset({
    "EXISTS", "GET", "HEXISTS", "HGET", "HGETALL", "HKEYS", "HLEN", "HMGET", "INFO", "LINDEX", "LLEN", "LPOS",
    "LRANGE", "MGET", "PING", "PTTL", "SCAN", "SCARD", "SISMEMBER", "SMEMBERS", "TIME", "TTL", "TYPE", "XLEN",
    "XRANGE", "ZCARD", "ZCOUNT", "ZRANGE", "ZRANGEBYSCORE", "ZRANK", "ZREVRANGE", "ZSCORE",
})  # fmt: skip


class WriteRefused(RuntimeError):
    """A read-only client was asked to send a command that is not a read. Nothing was sent."""


# By `redis_name_of`: all apps and queues of a process that use one Redis share what is known about it.
_known: dict[str, Answering] = {}


@contextmanager
def _asking(redis: Redis) -> Iterator[None]:
    """Surround calls of this Redis.

    Raises the driver's error, without waiting while Redis is known to be away.
    """
    known = _known.setdefault(redis_name_of(redis), Answering())
    with known.asking(_is_silence, lambda: NoConnection("Redis did not answer a moment ago")):
        yield


def _is_silence(error: BaseException) -> bool:
    return isinstance(error, NoConnection | NoAnswer)


def find_silent(broker: Broker, names: Iterable[str]) -> list[SilentRedis]:
    """Return the Redis servers of these queues that do not answer. Takes at most 0.4 s for each of them."""
    found = []
    for queues in by_redis(read_only_queue(broker, name) for name in sorted(names)):
        try:
            queues[0].connection.ping()
        except RedisError:
            known = _known[redis_name_of(queues[0].connection)]
            if known.silent_since is not None:
                names_there = tuple(queue.name for queue in queues)
                found.append(SilentRedis(names_there, known.silent_since, known.answered_at))
    return found


class ReadOnlyRedis(Redis):
    """A client that only reads, on the connection pool of another client."""

    def __init__(self, like: Redis) -> None:
        super().__init__(connection_pool=like.connection_pool)

    def execute_command(self, *args: Any, **options: Any) -> Any:
        """Send a read; raises `WriteRefused` for anything else."""
        _refuse(args)
        with _asking(self):
            return super().execute_command(*args, **options)

    def pipeline(self, transaction: bool = False, shard_hint: Any = None) -> ReadOnlyPipeline:
        """Return a pipeline that only reads. It is never a transaction, because that needs MULTI."""
        return ReadOnlyPipeline(self.connection_pool, self.response_callbacks, False, shard_hint)


class ReadOnlyPipeline(Pipeline):
    """Several reads in one round trip."""

    def execute_command(self, *args: Any, **options: Any) -> Any:
        """Add a read to the pipeline; raises `WriteRefused` for anything else."""
        _refuse(args)
        return super().execute_command(*args, **options)

    def execute(self, raise_on_error: bool = True) -> list[Any]:
        """Send the reads and return the answers."""
        with _asking(self):
            return super().execute(raise_on_error)


def read_only_queue(broker: Broker, name: str) -> Queue:
    """Return RQ's queue on a read-only client with a time-out of 0.2 s. It cannot unpickle."""
    wire = broker.connections.wire(name, quick=True)
    client = ReadOnlyRedis(wire.redis)
    return Queue(name, connection=client, serializer=write_only(wire.serializer))


def _refuse(args: tuple[Any, ...]) -> None:
    command = args[0].decode() if isinstance(args[0], bytes) else str(args[0])
    name = command.split(maxsplit=1)[0].upper()
    if name not in READS:
        raise WriteRefused(f"{name} is not a read: this client of Redis only reads")
