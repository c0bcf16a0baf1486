"""Reads what each Redis tells of itself: version, memory, latency, and whether RQ is suspended there."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from statistics import median
from typing import Any

from redis import Redis, RedisError
from rq.suspension import WORKERS_SUSPENDED

from .connections import RedisConnections, address_of, by_redis, read_only_queue


@dataclass(frozen=True)
class RedisServer:
    """A Redis of some queues. `problem` is why it did not answer, and then the other values mean nothing.

    `most_memory` is 0 without a limit. `latency_seconds` is the median of three answers.
    """

    address: str
    problem: str | None = None
    version: str = ""
    eviction: str = "noeviction"
    used_memory: int = 0
    most_memory: int = 0
    is_cluster: bool = False
    is_suspended: bool = False
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
    return RedisServer(
        address=address_of(redis),
        version=str(info.get("redis_version", "")),
        eviction=str(info.get("maxmemory_policy", "noeviction")),
        used_memory=int(info.get("used_memory") or 0),
        most_memory=int(info.get("maxmemory") or 0),
        is_cluster=bool(info.get("cluster_enabled")),
        is_suspended=bool(redis.exists(WORKERS_SUSPENDED)),
        latency_seconds=median(_time_of_answer(redis) for _ in range(3)),
    )


def _time_of_answer(redis: Redis) -> float:
    began = time.monotonic()
    redis.ping()
    return time.monotonic() - began
