"""Reads Redis for pages and explanations with a client that refuses every command that is not a read.

It remembers which Redis did not answer, so that a page does not wait again for a silence that another one has met.
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

# What may be asked. A name that is not here is refused, so a command that Redis learns later is too.
READS = frozenset({
    "EXISTS", "GET", "HEXISTS", "HGET", "HGETALL", "HKEYS", "HLEN", "HMGET", "INFO", "LINDEX", "LLEN", "LPOS",
    "LRANGE", "MGET", "PING", "PTTL", "SCAN", "SCARD", "SISMEMBER", "SMEMBERS", "TIME", "TTL", "TYPE", "XLEN",
    "XRANGE", "ZCARD", "ZCOUNT", "ZRANGE", "ZRANGEBYSCORE", "ZRANK", "ZREVRANGE", "ZSCORE",
})  # fmt: skip


class WriteRefused(RuntimeError):
    """Somebody asked a read-only client to send another command than a read. Nothing was sent."""


# By place: all apps and all queues of a process that live on one Redis meet the same silence.
_known: dict[str, Answering] = {}


@contextmanager
def _asking(redis: Redis) -> Iterator[None]:
    """A block that asks this Redis. Raises the driver's error; at once while the Redis is known to be silent."""
    known = _known.setdefault(redis_name_of(redis), Answering())
    with known.asking(_is_silence, lambda: NoConnection("Redis did not answer a moment ago")):
        yield


def _is_silence(error: BaseException) -> bool:
    return isinstance(error, NoConnection | NoAnswer)


def find_silent(broker: Broker, names: Iterable[str]) -> list[SilentRedis]:
    """Which Redis of these queues do not answer; takes 0.4 s at most for each that falls silent."""
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
    """A client on another one's connections that only reads."""

    def __init__(self, like: Redis) -> None:
        super().__init__(connection_pool=like.connection_pool)

    def execute_command(self, *args: Any, **options: Any) -> Any:
        """Send a read; raises `WriteRefused` for anything else."""
        _refuse(args)
        with _asking(self):
            return super().execute_command(*args, **options)

    def pipeline(self, transaction: bool = False, shard_hint: Any = None) -> ReadOnlyPipeline:
        """A pipeline that only reads; never a transaction, which would need MULTI."""
        return ReadOnlyPipeline(self.connection_pool, self.response_callbacks, False, shard_hint)


class ReadOnlyPipeline(Pipeline):
    """Several reads in one round trip."""

    def execute_command(self, *args: Any, **options: Any) -> Any:
        """Add a read to the pipeline; raises `WriteRefused` for anything else."""
        _refuse(args)
        return super().execute_command(*args, **options)

    def execute(self, raise_on_error: bool = True) -> list[Any]:
        """Send the reads, and return the answers."""
        with _asking(self):
            return super().execute(raise_on_error)


def read_only_queue(broker: Broker, name: str) -> Queue:
    """RQ's queue of this name through a read-only client that gives up after 0.2 s, unable to unpickle."""
    wire = broker.connections.wire(name, quick=True)
    client = ReadOnlyRedis(wire.redis)
    return Queue(name, connection=client, serializer=write_only(wire.serializer))


def _refuse(args: tuple[Any, ...]) -> None:
    said = args[0].decode() if isinstance(args[0], bytes) else str(args[0])
    name = said.split(maxsplit=1)[0].upper()
    if name not in READS:
        raise WriteRefused(f"{name} is not a read: this client of Redis only reads")
