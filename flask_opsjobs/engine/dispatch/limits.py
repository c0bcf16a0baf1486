"""Decides how many jobs of limited lanes may be dispatched. Reads their buckets and takes no tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from ...core import sql
from ...core.db import Connection
from ...limits import bucket, stored_buckets
from ...limits.limit import bucket_of
from ...limits.stored_buckets import BucketSeen, Key


@dataclass(frozen=True)
class Due:
    """A lane with due jobs.

    `weight` is the weight of its first job in the limiter, None without a limiter.
    """

    lane: str
    queue: str
    weight: int | None

    @property
    def prefetch(self) -> tuple[str, bool]:
        """Return what names its prefetch: the queue, and whether the lane has a limiter."""
        return self.queue, self.key is not None

    @property
    def key(self) -> Key | None:
        """Return the bucket that the lane takes its tokens from; None without a limiter."""
        return bucket_of(self.lane)


@dataclass(frozen=True)
class DispatchQuota:
    """The weight that may be dispatched (`room`), and that of the heaviest job that can ever start (`most`).

    None means without bound.
    """

    room: int | None = None
    most: int | None = None


@dataclass
class BucketRooms:
    """The room in the buckets of due lanes, read in one statement.

    `next_seconds` tells in how many seconds the next token comes to one of the lanes that were asked for.
    """

    buckets: Mapping[str, BucketSeen]
    now: datetime
    next_seconds: float | None = field(default=None, init=False)

    def has_room(self, due: Due) -> bool:
        """Return whether the first job of a lane may be dispatched; always true without a limiter."""
        if due.key is None or due.weight is None:
            return True
        seen = self.buckets[due.lane]
        if seen.shape is None:
            return False
        room = bucket.room(seen.shape, seen.level, self.now)
        most = seen.shape.most
        # A job that is too heavy to ever start is skipped, and the job behind it may weigh only 1.
        wanted = due.weight if most is None or due.weight <= most else 1
        if room is None or room >= wanted:
            return True
        self._note(bucket.next_room(seen.shape, seen.level, wanted, self.now))
        return False

    def note_more(self, due: Due) -> None:
        """Note that the queue has room after a dispatch of the lane, so the next token can be used."""
        seen = self.buckets.get(due.lane)
        if seen is not None and seen.shape is not None and seen.shape.per_second is not None:
            self._note(0.0)

    def _note(self, seconds: float | None) -> None:
        if seconds is not None:
            before = self.next_seconds
            self.next_seconds = seconds if before is None else min(seconds, before)


def list_due(connection: Connection) -> list[Due]:
    """Return the lanes with due jobs, ordered by the first job of each lane."""
    return [Due(*row) for row in connection.execute(sql.load("find_due_lanes"))]


def list_limited_due(connection: Connection, queues: Sequence[str]) -> list[Due]:
    """Return the limited lanes of these queues with due jobs, ordered by the first job of each lane."""
    rows = connection.execute(sql.load("find_due_limited_lanes"), {"queues": list(queues)})
    return [Due(*row) for row in rows]


def read_allowance(connection: Connection, lanes: Sequence[Due], now: datetime) -> BucketRooms:
    """Read the room in the buckets of these lanes in one statement; in none when no lane is limited."""
    limited = {due.lane: (due.key, due.queue) for due in lanes if due.key is not None}
    if not limited:
        return BucketRooms({}, now)
    keys, queues = zip(*limited.values(), strict=True)
    seen = stored_buckets.list_buckets_to_dispatch(connection, keys, queues)
    if ahead := [(each.limiter, each.partition) for each in seen if each.is_ahead]:
        stored_buckets.set_buckets_back(connection, ahead)
    return BucketRooms(dict(zip(limited, seen, strict=True)), now)


def lock_and_read_quota(
    connection: Connection, lane: str, queue: str, now: datetime
) -> DispatchQuota:
    """Return how much the bucket of a limited lane allows a queue.

    Locks the bucket against other dispatchers until the commit.
    """
    key = bucket_of(lane)
    assert key is not None  # the lane has a limiter
    stored_buckets.lock_bucket_to_dispatch(connection, key)
    (seen,) = stored_buckets.list_buckets_to_dispatch(connection, [key], [queue])
    if seen.shape is None:
        return DispatchQuota(room=0)
    return DispatchQuota(bucket.room(seen.shape, seen.level, now), seen.shape.most)
