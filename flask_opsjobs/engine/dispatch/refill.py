"""Refills the prefetch of a worker's queues after each flush, without waiting for the dispatch loop."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial

from redis import RedisError

from ...core.db import Connection
from ...endings import Ended
from ...host import Host
from ..redis.broker import broker_of
from .dispatch import Dispatcher

# Dispatching all lanes of a queue may take at most this share of a recorder's time.
_WALK_SHARE = 0.2


class Refill:
    """Dispatches for one recorder after its flushes.

    `tell(queue, error)` is called when Redis did not take a push.
    """

    def __init__(self, host: Host, tell: Callable[[str, RedisError], None]) -> None:
        self._host = host
        self._tell = tell
        self._walk_at = 0.0

    def refill(self, connection: Connection, ended: Sequence[Ended], now: datetime) -> None:
        """Dispatch the lanes of jobs that ended: their limiters and their queues have room again.

        When a queue's own lane does not fill its prefetch, all lanes of the queue are dispatched: many
        partitions may wait with one job each.
        """
        dispatcher = Dispatcher(connection, broker_of(self._host), self._host.settings)
        for lane, queue in dict.fromkeys((job.lane, job.queue) for job in ended if job.is_limited):
            self._try(queue, partial(dispatcher.dispatch_lane, lane, queue, now))
        for queue in dict.fromkeys(job.queue for job in ended):
            self._try(queue, partial(self._refill_queue, dispatcher, queue, now))

    def _refill_queue(self, dispatcher: Dispatcher, queue: str, now: datetime) -> None:
        _, left = dispatcher.fill(queue, queue, now, refill=True)
        if not left or not self._has_limits() or time.monotonic() < self._walk_at:
            return
        began = time.monotonic()
        dispatcher.dispatch_all(now, queue)
        self._walk_at = time.monotonic() + (time.monotonic() - began) / _WALK_SHARE

    def _has_limits(self) -> bool:
        return any(task.declared.limit is not None for task in self._host.tasks.values())

    def _try(self, queue: str, act: Callable[[], object]) -> None:
        try:
            act()
        except RedisError as error:
            self._tell(queue, error)
