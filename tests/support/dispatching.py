"""Stands where a host's dispatcher or its connections to Redis do, with what a test gives it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from typing_extensions import override

from flask_opsjobs.engine.redis.broker import Broker
from flask_opsjobs.engine.redis.connections import RedisConnections, Wire


@dataclass
class AfterCommit:
    """Calls `push` with the notes of each committed session;
    without `has_room` no job is inserted as `queued`.
    """

    push: Callable[[Sequence[Any]], None]
    has_room: Callable[[str], bool] = lambda _queue: False


class TwoRedis(RedisConnections):
    """Connections to two Redis servers: the queue `elsewhere` is on the second."""

    def __init__(self, first: Broker, second: Broker) -> None:
        self._first, self._second = first.connections, second.connections

    @override
    def wire(self, queue: str, *, quick: bool = False) -> Wire:
        there = self._second if queue == "elsewhere" else self._first
        return there.wire(queue, quick=quick)

    @override
    def close(self) -> None:
        self._first.close()
        self._second.close()
