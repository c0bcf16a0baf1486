"""Reads the clocks of the Redis servers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime

from redis import RedisError

from .connections import RedisConnections, address_of, by_redis, read_only_queue


def read_redis_clocks(
    connections: RedisConnections, names: Iterable[str]
) -> Iterator[tuple[str, datetime]]:
    """Yield the address and the time of each Redis of these queues, each right after it has answered.

    One that does not answer is left out.
    """
    for queues in by_redis(read_only_queue(connections, name) for name in sorted(names)):
        redis = queues[0].connection
        try:
            seconds, micros = redis.time()
        except RedisError:
            continue
        yield address_of(redis), datetime.fromtimestamp(seconds + micros / 1e6, UTC)
