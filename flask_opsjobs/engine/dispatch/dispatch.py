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
from ..redis.broker import Broker, Delivery
from . import limits as dispatch_limits
from .limits import DispatchQuota

_log = logging.getLogger("flask_opsjobs.dispatch")


class Dispatcher:
    """Dispatches the jobs of one app's lanes. `connection` is in autocommit.

    `ignore_limits` dispatches limited jobs as if they had no limiter. After `dispatch_all`, `next_seconds`
    tells in how many seconds a rate limit gives the next token to a lane with due jobs; None when no token is
    awaited.
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
        """Dispatch the due lanes of one queue or all, as prefetch and buckets allow; return how many jobs.

        Skips lanes whose bucket was full when all buckets were read, and lanes of a queue whose prefetch is
        full.
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
        """Dispatch a lane as its prefetch allows, with `refill` only when below half; return how many jobs.

        Commits. Raises `RedisError` when the push failed; then the jobs are `available` again.
        """
        return self.fill(lane, queue, now, refill=refill)[0]

    def fill(
        self, lane: str, queue: str, now: datetime, *, refill: bool = False
    ) -> tuple[int, int]:
        """Dispatch as `dispatch_lane`; return (jobs dispatched, room that is left in the prefetch).

        Room is left only when the lane has no more due jobs, or when its limiter holds them back.
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
        # This block commits before anything is pushed, so no lock is held during a call to Redis.
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
        # UPDATE … RETURNING returns rows in any order, but the list in Redis is first in, first out.
        return sorted(taken, key=lambda delivery: (delivery.priority, delivery.id)), int(rows[0][0])


def push_or_recall(
    connection: Connection, broker: Broker, deliveries: Sequence[Delivery], *, quick: bool = False
) -> None:
    """Push committed deliveries.

    When Redis does not take them, recall the jobs and raise the `RedisError`.
    """
    try:
        broker.push(deliveries, quick=quick)
    except RedisError:
        # A push that timed out may still have arrived. Nobody can claim it: its dispatch number is outdated.
        recalled = recall(
            connection, [(delivery.id, delivery.dispatch_no) for delivery in deliveries]
        )
        _log.warning(
            "Redis did not take %d deliveries; %d jobs are available again",
            len(deliveries),
            len(recalled),
        )
        raise


def recall(connection: Connection, deliveries: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return queued jobs (id, dispatch_no) to `available`; return those that were still queued.

    Locks the jobs in id order. Commits.
    """
    ids, numbers = [id for id, _ in deliveries], [number for _, number in deliveries]
    rows = connection.execute(
        sql.load("recall_jobs"), {"ids": ids, "dispatch_nos": numbers}
    ).fetchall()
    return [(id, number) for id, number in rows]


def read_clock(connection: Connection) -> datetime:
    """Return the time of Postgres' clock. A pass of a loop reads it once."""
    with connection.cursor(row_factory=scalar_row) as cursor:
        now: datetime | None = cursor.execute("SELECT clock_timestamp()").fetchone()
    assert now is not None
    return now


def dispatch_due(connection: Connection, broker: Broker, settings: Settings, now: datetime) -> int:
    """Make one pass of the dispatch loop over all lanes; return how many jobs it dispatched."""
    return Dispatcher(connection, broker, settings).dispatch_all(now)
