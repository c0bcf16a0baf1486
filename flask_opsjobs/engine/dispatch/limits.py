"""Decides what may be dispatched of limited lanes: it looks at their buckets and takes nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from ...core import sql
from ...core.db import Connection
from ...limits import bucket
from ...limits import queries as limit_queries
from ...limits.lane import bucket_of
from ...limits.queries import BucketSeen, Key


@dataclass(frozen=True)
class Due:
    """A lane with due jobs: what its first one weighs in its limit, None without one."""

    lane: str
    queue: str
    weight: int | None

    @property
    def key(self) -> Key | None:
        """The bucket that it draws from."""
        return bucket_of(self.lane)


@dataclass(frozen=True)
class DispatchQuota:
    """How much weight of a lane may be dispatched, None for any; and above which weight a job can never start."""

    room: int | None = None
    most: int | None = None


@dataclass
class BucketRooms:
    """The room in the buckets of many due lanes, read in one statement; and when time alone makes room in one."""

    buckets: Mapping[str, BucketSeen]
    now: datetime
    next_seconds: float | None = field(default=None, init=False)

    def has_room(self, due: Due) -> bool:
        """Whether the first job of a lane may be dispatched. A lane without a limit always may."""
        if due.key is None or due.weight is None:
            return True
        seen = self.buckets[due.lane]
        if seen.shape is None:
            return False
        room = bucket.room(seen.shape, seen.standing, self.now)
        most = seen.shape.most
        # One that is too heavy for any moment is passed by: what is behind it may weigh as little as 1.
        wanted = due.weight if most is None or due.weight <= most else 1
        if room is None or room >= wanted:
            return True
        self._note(bucket.next_room(seen.shape, seen.standing, wanted, self.now))
        return False

    def note_more(self, due: Due) -> None:
        """The lane was dispatched, and its queue has room for more: the next token of its bucket is worth a look."""
        seen = self.buckets.get(due.lane)
        if seen is not None and seen.shape is not None and seen.shape.per_second is not None:
            self._note(0.0)

    def _note(self, seconds: float | None) -> None:
        if seconds is not None:
            before = self.next_seconds
            self.next_seconds = seconds if before is None else min(seconds, before)


def list_due(connection: Connection, queue: str | None = None) -> list[Due]:
    """The lanes with due jobs, of one queue or of all; the one whose first job comes first stands first."""
    rows = connection.execute(sql.load("find_due_lanes"), {"queue": queue})
    return [Due(*row) for row in rows]


def read_allowance(connection: Connection, lanes: Sequence[Due], now: datetime) -> BucketRooms:
    """What the buckets of these lanes allow; one statement, none when no lane is limited."""
    limited = {due.lane: (due.key, due.queue) for due in lanes if due.key is not None}
    if not limited:
        return BucketRooms({}, now)
    keys, queues = zip(*limited.values(), strict=True)
    seen = limit_queries.list_buckets(connection, keys, queues)
    if ahead := [(each.limiter, each.partition) for each in seen if each.is_ahead]:
        connection.execute(sql.load("set_buckets_back"), limit_queries.named(ahead))
    return BucketRooms(dict(zip(limited, seen, strict=True)), now)


def lock_and_look(connection: Connection, key: Key, queue: str, now: datetime) -> DispatchQuota:
    """What one bucket allows a queue, while no other dispatcher takes from it. Locks it until the caller commits."""
    connection.execute(
        sql.load("lock_bucket_to_dispatch"), {"limiter": key[0], "partition": key[1]}
    )
    (seen,) = limit_queries.list_buckets(connection, [key], [queue])
    if seen.shape is None:
        return DispatchQuota(room=0)
    return DispatchQuota(bucket.room(seen.shape, seen.standing, now), seen.shape.most)
