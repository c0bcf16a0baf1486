"""Reads what each Redis tells of itself, of RQ there, and of the jobs that wait in its queues."""

from __future__ import annotations

import time
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from statistics import median
from typing import Any

from redis import Redis, RedisError
from rq.defaults import RQ_KEY_PREFIX
from rq.suspension import WORKERS_SUSPENDED

from .broker import is_ours, make_data
from .connections import RedisConnections, address_of, by_redis, read_only_queue

# Of each queue so many jobs are looked at, and of larger ones nothing is read.
_MOST_JOBS = 20
_MOST_BYTES = 256_000
# What follows the prefix of RQ's keys in the channel to which each worker listens.
_CHANNEL = ":pubsub:"


@dataclass(frozen=True)
class RedisServer:
    """A Redis of some queues. `problem` is why it did not answer, and then the other values mean nothing.

    `most_memory` is 0 without a limit. `latency_seconds` is the median of three answers. `foreign_prefixes`
    are the prefixes of keys under which workers of RQ listen while none does under that of this process.
    Of a cluster only the address and the version are read.
    """

    address: str
    problem: str | None = None
    version: str = ""
    eviction: str = "noeviction"
    used_memory: int = 0
    most_memory: int = 0
    is_cluster: bool = False
    is_suspended: bool = False
    foreign_prefixes: tuple[str, ...] = ()
    latency_seconds: float = 0.0


def read_servers(connections: RedisConnections, names: Iterable[str]) -> Iterator[RedisServer]:
    """Yield each Redis of these queues. Never raises: a server that does not answer in 0.2 s says so."""
    for queues in by_redis(read_only_queue(connections, name) for name in sorted(names)):
        redis = queues[0].connection
        try:
            yield _read(redis)
        except RedisError as error:
            yield RedisServer(address_of(redis), problem=type(error).__name__)


def _read(redis: Redis) -> RedisServer:
    info: dict[str, Any] = redis.info()
    version = str(info.get("redis_version", ""))
    if info.get("cluster_enabled"):
        # It refuses to read keys of other nodes.
        return RedisServer(address_of(redis), version=version, is_cluster=True)
    return RedisServer(
        address=address_of(redis),
        version=version,
        eviction=str(info.get("maxmemory_policy", "noeviction")),
        used_memory=int(info.get("used_memory") or 0),
        most_memory=int(info.get("maxmemory") or 0),
        is_suspended=bool(redis.exists(WORKERS_SUSPENDED)),
        foreign_prefixes=_find_foreign_prefixes(redis),
        latency_seconds=median(_time_of_answer(redis) for _ in range(3)),
    )


def _time_of_answer(redis: Redis) -> float:
    began = time.monotonic()
    redis.ping()
    return time.monotonic() - began


def _find_foreign_prefixes(redis: Redis) -> tuple[str, ...]:
    channels: Any = redis.pubsub_channels(f"*{_CHANNEL}*")
    heard = {channel.decode(errors="replace").partition(_CHANNEL)[0] for channel in channels}
    if RQ_KEY_PREFIX in heard:
        return ()
    # Channels are those of all databases of the server, and keys are of this one.
    return tuple(sorted(prefix for prefix in heard if redis.exists(f"{prefix}:workers")))


def find_foreign_job(connections: RedisConnections, names: Iterable[str]) -> tuple[str, str] | None:
    """Find a job that another serializer has written than the one of its queue: (queue, RQ id).

    Looks at the first plain RQ jobs of each queue, and at the first byte of their data. Raises `RedisError`.
    """
    for name in sorted(names):
        wire = connections.wire(name, quick=True)
        queue, redis = read_only_queue(connections, name), wire.reader
        expected = _is_json(make_data(wire.serializer))
        first: Any = redis.lrange(queue.key, 0, _MOST_JOBS - 1)
        for raw in first:
            rq_id = raw.decode(errors="replace")
            key = f"{RQ_KEY_PREFIX}:job:{rq_id}"
            if is_ours(rq_id) or not 0 < redis.hstrlen(key, "data") <= _MOST_BYTES:
                continue
            data: Any = redis.hget(key, "data")
            if _is_json(data or b"") is not expected:
                return name, rq_id
    return None


def _is_json(data: bytes) -> bool:
    """Whether the data of a job is JSON: a list of function, instance, args and kwargs. A pickle is not."""
    try:
        first = zlib.decompressobj().decompress(data, 1)
    except zlib.error:  # RQ reads data that is not compressed, too
        first = data[:1]
    return first == b"["
