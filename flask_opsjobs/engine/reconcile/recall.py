"""Recalls jobs whose delivery is lost, and counts deliveries that RQ failed without running our code."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from rq import Queue
from rq.job import JobStatus

from ... import endings
from ...core import sql
from ...core.db import Connection
from ...core.redis_facts import PARKED_GRACES
from ..dispatch.dispatch import recall
from ..redis.broker import Broker, rq_id
from ..redis.reads import find_deliveries, read_hashes
from .remove_deliveries import try_remove_deliveries

_MOST_ROWS = 20_000

Key = tuple[int, int]


@dataclass(frozen=True)
class Suspects:
    """Jobs whose deliveries this process has missed, each with the time of the first pass that missed it.

    The delivery of an `absent` job is nowhere in Redis. The delivery of a `parked` job is only in RQ's
    intermediate list. A job is recalled only after a second pass has missed it too. The next pass reads the
    jobs with ids above `after`.
    """

    absent: Mapping[Key, datetime] = field(default_factory=dict)
    parked: Mapping[Key, datetime] = field(default_factory=dict)
    after: int = 0


@dataclass(frozen=True)
class Recalled:
    """The result of a pass, and the suspects that the next pass gets.

    `recalled` and `failed` are deliveries (id, dispatch_no): those that were recalled, and those that RQ
    marked as failed.
    """

    suspects: Suspects
    recalled: list[Key]
    failed: list[Key]


@dataclass(frozen=True)
class _Queued:
    id: int
    dispatch_no: int
    queue: str

    @property
    def key(self) -> Key:
        return self.id, self.dispatch_no

    @property
    def reserved_as(self) -> str:
        """Return the name of the delivery in a worker's heartbeat."""
        return f"{self.id}-{self.dispatch_no}"

    @property
    def rq_id(self) -> str:
        return rq_id(self.id, self.dispatch_no)


def recall_lost(
    connection: Connection, broker: Broker, now: datetime, suspects: Suspects, recall_seconds: float
) -> Recalled:
    """Recall `queued` jobs whose delivery two passes at least `recall_seconds` apart have missed. Commits.

    A pass misses a delivery when the list of its queue does not contain it, RQ does not run it, and no
    worker has reserved it. If the delivery is in RQ's intermediate list, the two passes must be
    `PARKED_GRACES` times as far apart. A delivery that RQ marked as failed is counted instead of recalled;
    the third one ends its job.

    Raises `RedisError` when Redis does not answer; then nothing was recalled. No lock is held during a call
    to Redis. The writes are fenced by `dispatch_no`, so any number of processes may recall at the same time.
    """
    rows, after = _page(connection, now, suspects.after, recall_seconds)
    reserved = {name for (name,) in connection.execute(sql.load("list_reserved_deliveries"))}
    absent, parked = _find_absent_and_parked(broker, rows, reserved, now)
    seen = Suspects(
        absent=_since(suspects.absent, absent, suspects.after, after, now),
        parked=_since(suspects.parked, parked, suspects.after, after, now),
        after=after,
    )
    lost = _overdue(seen.absent, absent, now, recall_seconds)
    lost |= _overdue(seen.parked, parked, now, recall_seconds * PARKED_GRACES)
    if not lost:
        return Recalled(seen, [], [])
    return _recall_lost_rows(
        connection, broker, [row for row in rows if row.key in lost], seen, now
    )


def recall_paused(connection: Connection, queue: str | None = None) -> list[tuple[str, int, int]]:
    """Recall the `queued` jobs of one paused queue, or of all. Queues that drain are left out. Commits.

    Returns the recalled deliveries (queue, id, dispatch_no). Nobody can claim them any more; the caller
    removes them from Redis. It is called right after a pause. The recall loop calls it again, because a
    dispatcher that read the queue before the pause may commit after it. The write is fenced by `dispatch_no`,
    so a job that a worker claims meanwhile is not recalled. Jobs that a worker has reserved are not recalled
    either, because a crash of Postgres may have lost their claim.
    """
    wanted = {"queue": queue, "limit": _MOST_ROWS}
    found = connection.execute(sql.load("list_queued_in_paused"), wanted).fetchall()
    reserved = {name for (name,) in connection.execute(sql.load("list_reserved_deliveries"))}
    rows = [row for row in (_Queued(*row) for row in found) if row.reserved_as not in reserved]
    recalled = set(recall(connection, [row.key for row in rows])) if rows else set()
    return sorted((row.queue, *row.key) for row in rows if row.key in recalled)


def _page(
    connection: Connection, now: datetime, after: int, seconds: float
) -> tuple[list[_Queued], int]:
    """Return queued jobs with ids above `after`, and the `after` of the next pass; 0 begins again."""
    page = {"now": now, "after": after, "seconds": seconds, "limit": _MOST_ROWS}
    found = connection.execute(sql.load("list_queued_jobs"), page).fetchall()
    rows = [_Queued(*row) for row in found]
    return rows, rows[-1].id if len(rows) == _MOST_ROWS else 0


def _by_queue(rows: Iterable[_Queued]) -> dict[str, list[_Queued]]:
    found: dict[str, list[_Queued]] = {}
    for row in rows:
        found.setdefault(row.queue, []).append(row)
    return found


def _find_absent_and_parked(
    broker: Broker, rows: list[_Queued], reserved: Collection[str], now: datetime
) -> tuple[set[Key], set[Key]]:
    """Return the rows that are nowhere in Redis, and those that are only in an intermediate list."""
    absent: set[Key] = set()
    parked: set[Key] = set()
    for name, group in _by_queue(rows).items():
        found = find_deliveries(broker.queue(name), [row.rq_id for row in group], now)
        certain = found.listed | found.running
        for row in group:
            if row.rq_id in certain or row.reserved_as in reserved:
                continue
            (parked if row.rq_id in found.intermediate else absent).add(row.key)
    return absent, parked


def _since(
    before: Mapping[Key, datetime],
    found: set[Key],
    first: int,
    last: int,
    now: datetime,
) -> dict[Key, datetime]:
    """Return each missed job with the time of the first pass that missed it.

    Jobs that this pass did not check keep their time.
    """
    not_checked = {
        key: since for key, since in before.items() if key[0] <= first or (last and key[0] > last)
    }
    # A time later than `now` was noted before the clock was stepped back. `min` replaces it by `now`.
    return not_checked | {key: min(before.get(key, now), now) for key in found}


def _overdue(
    since: Mapping[Key, datetime], found: set[Key], now: datetime, seconds: float
) -> set[Key]:
    grace = timedelta(seconds=seconds)
    return {key for key in found if now - since[key] >= grace}


def _recall_lost_rows(
    connection: Connection, broker: Broker, rows: list[_Queued], seen: Suspects, now: datetime
) -> Recalled:
    failed: list[Key] = []
    for name, group in _by_queue(rows).items():
        failed += _failed_by_rq(broker.queue(name), group)
    counted = [
        (job.id, job.dispatch_no)
        for job in endings.count_failed_deliveries(connection, failed, now)
    ]
    recalled = recall(connection, [row.key for row in rows if row.key not in set(failed)])
    gone = {*counted, *recalled}
    try_remove_deliveries(broker, [(row.queue, *row.key) for row in rows if row.key in gone])
    return Recalled(
        Suspects(
            absent={key: since for key, since in seen.absent.items() if key not in gone},
            parked={key: since for key, since in seen.parked.items() if key not in gone},
            after=seen.after,
        ),
        recalled,
        counted,
    )


def _failed_by_rq(queue: Queue, rows: list[_Queued]) -> list[Key]:
    hashes = read_hashes(queue.connection, [row.rq_id for row in rows])
    failed = JobStatus.FAILED.value
    return [row.key for row in rows if (found := hashes.get(row.rq_id)) and found.status == failed]
