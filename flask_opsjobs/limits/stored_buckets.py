"""Reads, locks and writes stored buckets, for enqueue, dispatch, claim and pages.

`bucket.py` decides whether a job may start.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from psycopg import Cursor
from psycopg.rows import dict_row
from sqlalchemy import Connection as SqlConnection

from ..core import sql
from ..core.db import Connection
from .bucket import BucketLevel, Shape

Key = tuple[str, str]
# Synchronized clocks differ by less than this.
_MOST_CLOCK_DIFFERENCE = timedelta(seconds=1)


@dataclass(frozen=True)
class BucketSeen:
    """A bucket as it was read at `now`.

    `shape` is None when no process that knows the limiter has started yet. `waiting` is the weight of its
    `available` jobs that are light enough ever to start, 0 when the caller did not ask for it.
    """

    limiter: str
    partition: str
    shape: Shape | None
    level: BucketLevel
    waiting: int
    now: datetime

    @property
    def is_ahead(self) -> bool:
        """Whether the last refill lies in the future because a clock was stepped back.

        Until that time no token comes.
        """
        filled = self.level.refilled_at
        return filled is not None and filled - self.now > _MOST_CLOCK_DIFFERENCE


def list_buckets_to_dispatch(
    connection: Connection, keys: Sequence[Key], queues: Sequence[str]
) -> list[BucketSeen]:
    """The bucket of each key, in order, as dispatch sees it for its queue, the same position in `queues`."""
    with connection.cursor(row_factory=dict_row) as cursor:
        parameters = _parameters(keys, queues, with_waiting=False)
        cursor.execute(sql.load("read_buckets"), parameters)
        return [_bucket_from_row(row) for row in cursor]


def ask_bucket(
    connection: Connection, key: Key, queue: str | None = None
) -> Cursor[dict[str, Any]]:
    """Send the query for one bucket; `read_bucket` reads the answer.

    With `queue`, as dispatch on this queue sees it. In a pipeline this does not wait for the answer.
    """
    cursor = connection.cursor(row_factory=dict_row)
    parameters = _parameters([key], [queue], with_waiting=False)
    return cursor.execute(sql.load("read_buckets"), parameters)


def read_bucket(cursor: Cursor[dict[str, Any]]) -> BucketSeen:
    """The bucket that `ask_bucket` asked for."""
    return _bucket_from_row(cursor.fetchone())


def get_bucket(
    connection: SqlConnection, limiter: str, partition: str, *, with_waiting: bool = False
) -> BucketSeen:
    """One bucket; with `with_waiting`, also the waiting weight."""
    parameters = _parameters([(limiter, partition)], [None], with_waiting=with_waiting)
    rows = connection.exec_driver_sql(sql.load("read_buckets"), parameters).mappings()
    return _bucket_from_row(rows.one())


def list_buckets(
    connection: SqlConnection, keys: Iterable[Key], queues: Sequence[str] | None = None
) -> list[BucketSeen]:
    """These buckets, in their order, read on the connection of a SQLAlchemy session.

    With `queues`, each as dispatch on the queue at the same position sees it.
    """
    wanted = list(keys)
    parameters = _parameters(wanted, queues or [None] * len(wanted), with_waiting=False)
    rows = connection.exec_driver_sql(sql.load("read_buckets"), parameters).mappings()
    return [_bucket_from_row(row) for row in rows]


def lock_bucket(connection: Connection, key: Key) -> Cursor[Any]:
    """Lock a bucket until the caller's transaction ends.

    The cursor has no row when the bucket is not stored yet.
    """
    return connection.execute(sql.load("lock_bucket"), _key(key))


def make_bucket(connection: Connection, key: Key) -> None:
    """Store a bucket that is used for the first time. The caller locks it next."""
    connection.execute(sql.load("make_bucket"), _key(key))


def lock_bucket_to_dispatch(connection: Connection, key: Key) -> None:
    """Lock a bucket against other dispatchers until the transaction ends. Claims do not wait for it."""
    connection.execute(sql.load("lock_bucket_to_dispatch"), _key(key))


def set_buckets_back(connection: Connection, keys: Sequence[Key]) -> None:
    """Set the last refill of these buckets back to now, after a clock was stepped back."""
    connection.execute(sql.load("set_buckets_back"), _named(keys))


def _key(key: Key) -> dict[str, str]:
    return {"limiter": key[0], "partition": key[1]}


def _named(keys: Sequence[Key]) -> dict[str, list[str]]:
    """The keys of buckets as parameters of statements: two lists, `limiters` and `partitions`."""
    return {
        "limiters": [limiter for limiter, _ in keys],
        "partitions": [partition for _, partition in keys],
    }


def _parameters(
    keys: Sequence[Key], queues: Sequence[str | None], *, with_waiting: bool
) -> dict[str, Any]:
    return {**_named(keys), "queues": list(queues), "with_waiting": with_waiting}


def _bucket_from_row(row: Any) -> BucketSeen:
    shape = Shape(row["rate"], row["per_seconds"], row["burst"], row["concurrency"])
    level = BucketLevel(
        row["tokens"], row["refilled_at"], row["in_use"], row["queued"], row["cooldown_until"]
    )
    return BucketSeen(
        limiter=row["limiter"],
        partition=row["partition"],
        shape=None if row["name"] is None else shape,
        level=level,
        waiting=row["waiting"],
        now=row["now"].astimezone(UTC),  # in a host's session it is in the zone of the database
    )
