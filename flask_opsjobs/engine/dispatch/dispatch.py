"""Dispatches due jobs of a lane: marks them `queued`, commits, and only then pushes them to RQ."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from psycopg.rows import scalar_row
from redis import RedisError

from ...core import sql
from ...core.db import Connection
from ...limits.lane import bucket_of
from ...settings import Settings
from ..redis.broker import Broker
from ..redis.delivery import Delivery
from . import limits as dispatch_limits
from .limits import DispatchQuota

_log = logging.getLogger("flask_opsjobs.dispatch")


class Dispatcher:
    """Dispatches the jobs of one app's lanes on a connection of its own, which is in autocommit.

    With `ignore_limits` no limit counts. After `dispatch_all`, `next_seconds` is in how many seconds time alone makes
    room on a limited lane that has due jobs; None when it makes none.
    """

    def __init__(
        self,
        connection: Connection,
        broker: Broker,
        settings: Settings,
        *,
        quick: bool = False,
        ignore_limits: bool = False,
    ) -> None:
        self._connection = connection
        self._broker = broker
        self._settings = settings
        self._quick = quick
        self._ignore_limits = ignore_limits
        self.next_seconds: float | None = None

    def dispatch_all(self, now: datetime, queue: str | None = None) -> int:
        """Dispatch what prefetch and buckets allow on every lane that has due jobs, of one queue or all; how many.

        A full lane is passed by as it was read with all others; so are further lanes of a queue whose prefetch is full.
        """
        lanes = dispatch_limits.list_due(self._connection, queue)
        rooms = dispatch_limits.read_allowance(
            self._connection, [] if self._ignore_limits else lanes, now
        )
        full: set[str] = set()
        total = 0
        for due in lanes:
            if due.queue in full or not (self._ignore_limits or rooms.has_room(due)):
                continue
            count, left = self.fill(due.lane, due.queue, now)
            total += count
            if not left:
                full.add(due.queue)
            elif count:
                rooms.note_more(due)
        self.next_seconds = rooms.next_seconds
        return total

    def dispatch_lane(self, lane: str, queue: str, now: datetime, *, refill: bool = False) -> int:
        """Dispatch what the prefetch allows on one lane; with `refill` only when the prefetch is below half.

        Raises `RedisError` when the push failed; the jobs are `available` again then.
        """
        return self.fill(lane, queue, now, refill=refill)[0]

    def fill(
        self, lane: str, queue: str, now: datetime, *, refill: bool = False
    ) -> tuple[int, int]:
        """As `dispatch_lane`; returns (how many were dispatched, how much room the prefetch had left after that).

        Room is left only when the lane has no more due jobs, or its limit holds them.
        """
        deliveries, free = self._take(lane, queue, now, refill)
        if deliveries:
            push_or_recall(self._connection, self._broker, deliveries, quick=self._quick)
        return len(deliveries), max(0, free - len(deliveries))

    def _take(
        self, lane: str, queue: str, now: datetime, refill: bool
    ) -> tuple[list[Delivery], int]:
        parameters: dict[str, Any] = {
            "lane": lane,
            "queue": queue,
            "now": now,
            "prefetch": self._settings.prefetch,
            "late_seconds": self._settings.late_seconds,
            "refill": refill,
        }
        # The block commits when it is left: nothing is pushed before that, and no lock is held over a Redis call.
        with self._connection.transaction():
            self._connection.execute("SET LOCAL synchronous_commit = on")
            key = None if self._ignore_limits else bucket_of(lane)
            quota = (
                DispatchQuota()
                if key is None
                else dispatch_limits.lock_and_look(self._connection, key, queue, now)
            )
            parameters |= {"room": quota.room, "most": quota.most}
            rows = self._connection.execute(sql.load("dispatch_lane"), parameters).fetchall()
        taken = [Delivery(*row[1:]) for row in rows if row[1] is not None]
        # UPDATE … RETURNING has no order; the list in Redis is first in, first out.
        return sorted(taken, key=lambda delivery: (delivery.priority, delivery.id)), int(rows[0][0])


def push_or_recall(
    connection: Connection, broker: Broker, deliveries: Sequence[Delivery], *, quick: bool = False
) -> None:
    """Push committed deliveries; when Redis does not take them, recall the jobs and raise its error."""
    try:
        broker.push(deliveries, quick=quick)
    except RedisError:
        # A push that timed out may have arrived all the same. That delivery then bears an old number and finds no row.
        recalled = recall(
            connection, [(delivery.id, delivery.dispatch_no) for delivery in deliveries]
        )
        _log.warning(
            "Redis did not take %d deliveries; %d jobs wait for it again",
            len(deliveries),
            len(recalled),
        )
        raise


def recall(connection: Connection, deliveries: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return queued jobs (id, dispatch_no) to `available`; those that were still queued. Commits, locks in id order."""
    ids, numbers = [id for id, _ in deliveries], [number for _, number in deliveries]
    rows = connection.execute(
        sql.load("recall_jobs"), {"ids": ids, "dispatch_nos": numbers}
    ).fetchall()
    return [(id, number) for id, number in rows]


def read_clock(connection: Connection) -> datetime:
    """Postgres' clock. A pass reads it once and passes it on."""
    with connection.cursor(row_factory=scalar_row) as cursor:
        now: datetime | None = cursor.execute("SELECT clock_timestamp()").fetchone()
    assert now is not None
    return now


def dispatch_due(connection: Connection, broker: Broker, settings: Settings, now: datetime) -> int:
    """One pass of the dispatch loop over all lanes; how many jobs it dispatched."""
    return Dispatcher(connection, broker, settings).dispatch_all(now)
