"""A Redis client that refuses every command that is not a read: what pages and explanations ask through."""

from __future__ import annotations

from typing import Any

from redis import Redis
from redis.client import Pipeline
from rq import Queue

from .broker import Broker
from .connections import write_only

# What may be asked. A name that is not here is refused, so a command that Redis learns later is too.
READS = frozenset({
    "EXISTS", "GET", "HEXISTS", "HGET", "HGETALL", "HKEYS", "HLEN", "HMGET", "INFO", "LINDEX", "LLEN", "LPOS",
    "LRANGE", "MGET", "PING", "PTTL", "SCAN", "SCARD", "SISMEMBER", "SMEMBERS", "TIME", "TTL", "TYPE", "XLEN",
    "XRANGE", "ZCARD", "ZCOUNT", "ZRANGE", "ZRANGEBYSCORE", "ZRANK", "ZREVRANGE", "ZSCORE",
})  # fmt: skip


class WriteRefused(RuntimeError):
    """Somebody asked a read-only client to send another command than a read. Nothing was sent."""


class ReadOnlyRedis(Redis):
    """A client on another one's connections that only reads."""

    def __init__(self, like: Redis) -> None:
        super().__init__(connection_pool=like.connection_pool)

    def execute_command(self, *args: Any, **options: Any) -> Any:
        """Send a read; raises `WriteRefused` for anything else."""
        _refuse(args)
        return super().execute_command(*args, **options)

    def pipeline(self, transaction: bool = False, shard_hint: Any = None) -> ReadOnlyPipeline:
        """A pipeline that only reads; never a transaction, which would need MULTI."""
        return ReadOnlyPipeline(self.connection_pool, self.response_callbacks, False, shard_hint)


class ReadOnlyPipeline(Pipeline):
    """Several reads in one round trip."""

    def execute_command(self, *args: Any, **options: Any) -> Any:
        """Put a read in line; raises `WriteRefused` for anything else."""
        _refuse(args)
        return super().execute_command(*args, **options)


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
