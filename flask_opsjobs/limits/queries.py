"""Reads buckets for the functions that admit. Locks nothing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from psycopg import Cursor
from psycopg.rows import dict_row
from sqlalchemy import Connection as SqlConnection

from ..core import sql
from ..core.db import Connection
from .bucket import BucketLevel, Shape

Key = tuple[str, str]
# Clocks that are kept differ by less.
_STEP = timedelta(seconds=1)


@dataclass(frozen=True)
class BucketSeen:
    """One bucket as it was read at `now`. `shape` is None when no process that knows the limiter has started yet.

    `waiting` is the weight of its `available` jobs, 0 when it was not asked for.
    """

    limiter: str
    partition: str
    shape: Shape | None
    standing: BucketLevel
    waiting: int
    now: datetime

    @property
    def is_ahead(self) -> bool:
        """Whether it was filled at a time that is still to come: a clock was stepped back, and until then none come."""
        filled = self.standing.refilled_at
        return filled is not None and filled - self.now > _STEP


def list_buckets(
    connection: Connection, keys: Sequence[Key], queues: Sequence[str]
) -> list[BucketSeen]:
    """What stands in the buckets of these limiters and partitions, each as seen from a queue, in their order."""
    with connection.cursor(row_factory=dict_row) as cursor:
        asked = _asked(keys, queues, with_waiting=False)
        cursor.execute(sql.load("look_at_buckets"), asked)
        return [_seen(row) for row in cursor]


def ask_bucket(connection: Connection, key: Key) -> Cursor[dict[str, Any]]:
    """Ask what stands in one bucket; in a pipeline nothing waits for the answer yet."""
    cursor = connection.cursor(row_factory=dict_row)
    return cursor.execute(sql.load("look_at_buckets"), _asked([key], [None], with_waiting=False))


def read_bucket(asked: Cursor[dict[str, Any]]) -> BucketSeen:
    """What was asked for."""
    return _seen(asked.fetchone())


def get_bucket(
    connection: SqlConnection,
    limiter: str,
    partition: str,
    *,
    queue: str | None = None,
    with_waiting: bool = False,
) -> BucketSeen:
    """What stands in one bucket, as dispatch sees it from a queue if wanted, and what waits for it if wanted."""
    asked = _asked([(limiter, partition)], [queue], with_waiting=with_waiting)
    return _seen(connection.exec_driver_sql(sql.load("look_at_buckets"), asked).mappings().one())


def list_buckets_of(connection: SqlConnection, keys: Iterable[Key]) -> list[BucketSeen]:
    """What stands in these buckets, in their order, as a session's connection sees it."""
    asked = _asked(wanted := list(keys), [None] * len(wanted), with_waiting=False)
    rows = connection.exec_driver_sql(sql.load("look_at_buckets"), asked).mappings()
    return [_seen(row) for row in rows]


def named(keys: Sequence[Key]) -> dict[str, list[str]]:
    """Buckets as statements ask for them."""
    return {
        "limiters": [limiter for limiter, _ in keys],
        "partitions": [partition for _, partition in keys],
    }


def _asked(
    keys: Sequence[Key], queues: Sequence[str | None], *, with_waiting: bool
) -> dict[str, Any]:
    return {**named(keys), "queues": list(queues), "with_waiting": with_waiting}


def _seen(row: Any) -> BucketSeen:
    shape = Shape(row["rate"], row["per_seconds"], row["burst"], row["concurrency"])
    standing = BucketLevel(
        row["tokens"], row["refilled_at"], row["in_use"], row["queued"], row["cooldown_until"]
    )
    return BucketSeen(
        limiter=row["limiter"],
        partition=row["partition"],
        shape=None if row["name"] is None else shape,
        standing=standing,
        waiting=row["waiting"],
        now=row["now"],
    )
