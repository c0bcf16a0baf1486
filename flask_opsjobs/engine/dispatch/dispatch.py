"""Dispatches due jobs of a lane: marks them `queued`, commits, and only then pushes them to RQ.

A commit of the host dispatches, each flush of a worker (`Refill`), and the loops (`dispatch_all`, `stage`).
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from functools import partial
from math import inf
from typing import Any, Protocol

from redis import RedisError
from typing_extensions import override

from ... import endings, signals
from ...core import sql
from ...core.db import Connection
from ...endings import MovedJob
from ...host import Host
from ...settings import Settings
from ..redis.broker import Delivery, broker_of
from . import limits as dispatch_limits
from .limits import DispatchQuota, Due

# One pass makes at most so many scheduled and retryable jobs available.
STAGE_BATCH = 5_000
# Dispatching all lanes of a queue may take at most this share of a recorder's time, and so long at once.
_ALL_LANES_SHARE = 0.2
_ALL_LANES_SECONDS = 0.1
# The buckets of so many lanes are read together then.
_LANES = 20
# After a failure of Redis, a recorder leaves dispatch to the loop for this long.
_PAUSE_SECONDS = 5.0


class TakesDeliveries(Protocol):
    """Takes deliveries for RQ. In a host's tests, something else than the `Broker` takes them."""

    def push(self, deliveries: Iterable[Delivery], *, quick: bool = False) -> object:
        """Push deliveries, in the given order. Raises `RedisError`; then the jobs are recalled."""
        ...


class KeptDeliveries(TakesDeliveries):
    """Keeps deliveries in the place of Redis: its owner claims them itself."""

    def __init__(self) -> None:
        self.deliveries: list[Delivery] = []

    @override
    def push(self, deliveries: Iterable[Delivery], *, quick: bool = False) -> None:
        self.deliveries += deliveries


class Dispatcher:
    """Dispatches the jobs of one app's lanes. `connection` is in autocommit.

    `ignore_limits` dispatches limited jobs as if they had no limiter. `most` is for a caller that takes jobs
    past Redis: so many in all, instead of what each prefetch allows. After `dispatch_lanes`, `next_seconds`
    tells in how many seconds a rate limit gives the next token to a lane with due jobs; None when no token is
    awaited. `full` holds each `Due.prefetch` that was full.
    """

    def __init__(
        self,
        connection: Connection,
        broker: TakesDeliveries,
        settings: Settings,
        *,
        quick: bool = False,
        ignore_limits: bool = False,
        most: int | None = None,
    ) -> None:
        self._connection = connection
        self._broker = broker
        self._settings = settings
        self._quick = quick
        self._ignore_limits = ignore_limits
        self._most = most
        self.next_seconds: float | None = None
        self.full: set[tuple[str, bool]] = set()

    def dispatch_all(self, now: datetime) -> int:
        """Dispatch all due lanes; return how many jobs."""
        return self.dispatch_lanes(dispatch_limits.list_due(self._connection), now)

    def dispatch_lanes(self, lanes: Sequence[Due], now: datetime) -> int:
        """Dispatch these lanes as prefetch and buckets allow; return how many jobs.

        Skips lanes whose bucket was full when all buckets were read, and lanes of a queue whose prefetch is
        full.
        """
        rooms = dispatch_limits.read_allowance(
            self._connection, [] if self._ignore_limits else lanes, now
        )
        total = 0
        for due in lanes:
            if due.prefetch in self.full or not (self._ignore_limits or rooms.has_room(due)):
                continue
            count, left = self.fill(due.lane, due.queue, now)
            total += count
            if self._most == 0:
                break
            if not left:
                self.full.add(due.prefetch)
            elif count:
                rooms.note_more(due)
        self.next_seconds = rooms.next_seconds
        return total

    def dispatch_lane(self, lane: str, queue: str, now: datetime) -> int:
        """Dispatch a lane as its prefetch allows; return how many jobs.

        Commits. Raises `RedisError` when the push failed; then the jobs are `available` again.
        """
        return self.fill(lane, queue, now)[0]

    def fill(self, lane: str, queue: str, now: datetime) -> tuple[int, int]:
        """Dispatch as `dispatch_lane`; return (jobs dispatched, room that is left in the prefetch).

        Room is left only when the lane has no more due jobs, or when its limiter holds them back.
        """
        deliveries, free = self._take(lane, queue, now)
        if self._most is not None:
            self._most -= len(deliveries)
        if deliveries:
            push_or_recall(self._connection, self._broker, deliveries, quick=self._quick)
            send_dispatched((each.id, queue) for each in deliveries)
        return len(deliveries), max(0, free - len(deliveries))

    def _take(self, lane: str, queue: str, now: datetime) -> tuple[list[Delivery], int]:
        parameters: dict[str, Any] = {
            "lane": lane,
            "queue": queue,
            "now": now,
            "prefetch": self._settings.prefetch,
            "late_seconds": self._settings.late_seconds,
            "number": self._most,
        }
        # This block commits before anything is pushed, so no lock is held during a call to Redis.
        with self._connection.transaction():
            self._connection.execute("SET LOCAL synchronous_commit = on")
            # Jobs without a limiter wait in the lane that has the name of their queue.
            is_limited = lane != queue and not self._ignore_limits
            quota = (
                dispatch_limits.lock_and_read_quota(self._connection, lane, queue, now)
                if is_limited
                else DispatchQuota()
            )
            parameters |= {"room": quota.room, "most": quota.most}
            rows = self._connection.execute(sql.load("dispatch_lane"), parameters).fetchall()
        taken = [Delivery(*row[1:]) for row in rows if row[1] is not None]
        # UPDATE … RETURNING returns rows in any order, but the list in Redis is first in, first out.
        return sorted(taken, key=lambda delivery: (delivery.priority, delivery.id)), int(rows[0][0])


def send_dispatched(jobs: Iterable[tuple[int, str]]) -> None:
    """Say, once for each queue, that these jobs (id, queue) were handed to RQ or taken by a worker."""
    if not signals.jobs_dispatched.receivers:
        return
    ids = defaultdict[str, list[int]](list)
    for job_id, queue in jobs:
        ids[queue].append(job_id)
    for queue, of_queue in ids.items():
        signals.send(
            signals.jobs_dispatched, queue=queue, count=len(of_queue), job_ids=tuple(of_queue)
        )


def push_or_recall(
    connection: Connection,
    broker: TakesDeliveries,
    deliveries: Sequence[Delivery],
    *,
    quick: bool = False,
) -> None:
    """Push committed deliveries.

    When Redis does not take them, recall the jobs and raise the `RedisError`.
    """
    try:
        broker.push(deliveries, quick=quick)
    except RedisError:
        # A push that timed out may still have arrived. Nobody can claim it: its dispatch number is outdated.
        recall(connection, [(delivery.id, delivery.dispatch_no) for delivery in deliveries])
        raise


def has_limits(host: Host) -> bool:
    """Return whether a task of this app has a limiter."""
    return any(task.declared.limit is not None for task in host.tasks.values())


def take_limited(
    connection: Connection, settings: Settings, queues: Sequence[str], number: int, now: datetime
) -> list[Delivery]:
    """Dispatch at most `number` due jobs of limited lanes to the caller, past Redis; return their deliveries.

    The queues come in their order. Commits.
    """
    kept = KeptDeliveries()
    place = {queue: place for place, queue in enumerate(queues)}
    lanes = dispatch_limits.list_limited_due(connection, queues)
    lanes.sort(key=lambda each: place[each.queue])
    Dispatcher(connection, kept, settings, most=number).dispatch_lanes(lanes, now)
    return kept.deliveries


def recall(connection: Connection, deliveries: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return queued jobs (id, dispatch_no) to `available`; return those that were still queued.

    Locks the jobs in id order. Commits.
    """
    return [(row[0], row[1]) for row in _recall(connection, deliveries)]


def recall_lanes(
    connection: Connection, deliveries: Sequence[tuple[int, int]]
) -> list[tuple[str, str]]:
    """Recall as `recall`; return the (lane, queue) pairs in which jobs are due again."""
    return list(dict.fromkeys((row[2], row[3]) for row in _recall(connection, deliveries)))


def _recall(
    connection: Connection, deliveries: Sequence[tuple[int, int]]
) -> list[tuple[int, int, str, str]]:
    ids, numbers = [id for id, _ in deliveries], [number for _, number in deliveries]
    parameters = {"ids": ids, "dispatch_nos": numbers}
    with signals.once_committed():
        recalled = connection.execute(sql.load("recall_jobs"), parameters).fetchall()
        endings.send_recalls((row[0], row[3]) for row in recalled)
    return recalled


class Refill:
    """Dispatches for one recorder after its flushes.

    After a push that Redis did not take, it leaves dispatch to the loop for 5 s. `tell(error)` is called
    then, once until Redis takes something again, and `tell(None)` when it does. Redis gets 0.2 s for its
    answer: outcomes and heartbeats wait meanwhile.
    """

    def __init__(
        self, host: Host, tell: Callable[[RedisError | None], None] = lambda _error: None
    ) -> None:
        self._host = host
        self._tell = tell
        self._is_told = False
        # The queues whose limited lanes are dispatched next, each with the lanes that were left before.
        self._rest: dict[str, Sequence[Due]] = {}
        # The (lane, queue) pairs that were offered since then.
        self._offered: set[tuple[str, str]] = set()
        self._all_lanes_at = 0.0
        self._paused_until = 0.0

    def refill(
        self,
        connection: Connection,
        ended: Sequence[MovedJob],
        now: datetime,
        offered: Sequence[tuple[str, str]] = (),
    ) -> None:
        """Dispatch the limited lanes of jobs that ended: their limiters have room again.

        Not those (lane, queue) pairs that were `offered` to somebody who claims the next jobs. The other
        limited lanes of their queues are left to `dispatch_rest`: many partitions may wait with one job each.
        Lanes without a limiter are left to the workers, which take from them.
        """
        limited = dict.fromkeys((job.lane, job.queue) for job in ended if job.is_limited)
        self._offered |= {*offered}
        self.dispatch(connection, [lane for lane in limited if lane not in offered], now)
        if has_limits(self._host):
            for queue in dict.fromkeys(job.queue for job in ended):
                self._rest.setdefault(queue, ())

    def due_in(self) -> float:
        """Return in how many seconds `dispatch_rest` has something to do; infinity when it has not."""
        return self._all_lanes_at - time.monotonic() if self._rest else inf

    def dispatch_rest(self, connection: Connection, now: datetime) -> None:
        """Dispatch limited lanes of a queue in which jobs ended, for a moment; the rest the next time."""
        began = time.monotonic()
        queue = next(iter(self._rest))
        dispatcher = self._dispatcher(connection)
        lanes = self._rest.pop(queue) or [
            due
            for due in dispatch_limits.list_limited_due(connection, [queue])
            if (due.lane, queue) not in self._offered
        ]
        self._offered = {lane for lane in self._offered if lane[1] != queue}
        while lanes and lanes[0].prefetch not in dispatcher.full:
            self._try(partial(dispatcher.dispatch_lanes, lanes[:_LANES], now))
            lanes = lanes[_LANES:]
            if lanes and time.monotonic() - began > _ALL_LANES_SECONDS:
                self._rest[queue] = lanes
                break
        self._all_lanes_at = time.monotonic() + (time.monotonic() - began) / _ALL_LANES_SHARE

    def dispatch(
        self, connection: Connection, lanes: Iterable[tuple[str, str]], now: datetime
    ) -> None:
        """Dispatch these (lane, queue) pairs, in which jobs became due."""
        dispatcher = self._dispatcher(connection)
        for lane, queue in lanes:
            self._try(partial(dispatcher.dispatch_lane, lane, queue, now))

    def _dispatcher(self, connection: Connection) -> Dispatcher:
        return Dispatcher(connection, broker_of(self._host), self._host.settings, quick=True)

    def _try(self, act: Callable[[], int]) -> None:
        if time.monotonic() < self._paused_until:
            return
        try:
            if act() and self._is_told:
                self._tell(None)
                self._is_told = False
        except RedisError as error:
            self._paused_until = time.monotonic() + _PAUSE_SECONDS
            if not self._is_told:
                self._tell(error)
            self._is_told = True


def stage(
    connection: Connection, now: datetime, limit: int = STAGE_BATCH
) -> dict[tuple[str, str], int]:
    """Make at most `limit` due jobs available; return how many of each (lane, queue).

    Commits. Skips locked rows.
    """
    rows = connection.execute(sql.load("stage_jobs"), {"now": now, "limit": limit}).fetchall()
    return {(lane, queue): count for lane, queue, count in rows}
