"""Recalls jobs whose delivery is lost, and counts deliveries that RQ failed without running our code."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from redis import RedisError
from rq import Queue
from rq.job import JobStatus

from ... import endings
from ...core import sql
from ...core.db import Connection
from ...core.redis_facts import PARKED_GRACES, DeliveryPlace
from ...errors import EngineUnavailable
from ..dispatch.dispatch import recall
from ..redis.broker import Broker, rq_id
from ..redis.connections import by_redis
from ..redis.reads import find_deliveries, read_hashes, unavailable
from .remove_deliveries import remove_deliveries, try_remove_deliveries

_MOST_ROWS = 20_000

Key = tuple[int, int]


@dataclass(frozen=True)
class Suspects:
    """Jobs whose deliveries this process has missed, each with the time of the first pass that missed it.

    The delivery of an `absent` job is nowhere in Redis. The delivery of a `parked` job is only in RQ's
    intermediate list. That of an `unknown` job is in a Redis that does not answer. A job is recalled only
    after a second pass has missed it too. The next pass reads the jobs with ids above `after`.
    """

    absent: Mapping[Key, datetime] = field(default_factory=dict)
    parked: Mapping[Key, datetime] = field(default_factory=dict)
    unknown: Mapping[Key, datetime] = field(default_factory=dict)
    after: int = 0


@dataclass(frozen=True)
class Recalled:
    """The result of a pass, and the suspects that the next pass gets.

    The lists are of deliveries (id, dispatch_no): `recalled` were lost, RQ marked `failed` as failed, and
    `without_redis` were recalled because their Redis does not answer. `error` tells that one did not.
    """

    suspects: Suspects
    recalled: list[Key]
    failed: list[Key]
    without_redis: list[Key] = field(default_factory=list)
    error: EngineUnavailable | None = None


@dataclass(frozen=True)
class QueuedJob:
    """A `queued` job that no worker has reserved, and its delivery."""

    id: int
    dispatch_no: int
    queue: str

    @property
    def key(self) -> Key:
        """Return its delivery: (job id, dispatch number)."""
        return self.id, self.dispatch_no

    @property
    def reserved_as(self) -> str:
        """Return the name of the delivery in a worker's heartbeat."""
        return f"{self.id}-{self.dispatch_no}"

    @property
    def rq_id(self) -> str:
        """Return the RQ id of its delivery."""
        return rq_id(self.id, self.dispatch_no)


@dataclass
class MissedJobs:
    """The rows whose deliveries one pass has missed, as in `Suspects`."""

    absent: set[Key] = field(default_factory=set)
    parked: set[Key] = field(default_factory=set)
    unknown: set[Key] = field(default_factory=set)
    error: EngineUnavailable | None = None


def recall_lost(
    connection: Connection,
    broker: Broker,
    now: datetime,
    suspects: Suspects,
    recall_seconds: float,
    late_seconds: float,
) -> Recalled:
    """Recall `queued` jobs whose delivery two passes at least `recall_seconds` apart have missed. Commits.

    A pass misses a delivery when the list of its queue does not contain it, RQ does not run it, and no
    worker has reserved it. If the delivery is in RQ's intermediate list, the two passes must be
    `PARKED_GRACES` times as far apart. A delivery that RQ marked as failed is counted instead of recalled;
    the third one ends its job.

    A pass also misses a delivery when its Redis does not answer. Such a job is recalled if one of our workers
    listens to its queue: the worker takes it from Postgres. If the delivery appears again, it is outdated.
    The jobs of other Redis servers are recalled all the same.

    No lock is held during a call to Redis. The writes are fenced by `dispatch_no`, so any number of processes
    may recall at the same time. `late_seconds` tells which workers listen.
    """
    rows, after = read_page(connection, now, suspects.after, recall_seconds)
    reserved = {name for (name,) in connection.execute(sql.load("list_reserved_deliveries"))}
    missed = find_missed(broker, [row for row in rows if row.reserved_as not in reserved], now)
    seen = Suspects(
        absent=_since(suspects.absent, missed.absent, suspects.after, after, now),
        parked=_since(suspects.parked, missed.parked, suspects.after, after, now),
        unknown=_since(suspects.unknown, missed.unknown, suspects.after, after, now),
        after=after,
    )
    lost = _overdue(seen.absent, missed.absent, now, recall_seconds)
    lost |= _overdue(seen.parked, missed.parked, now, recall_seconds * PARKED_GRACES)
    unknown = _overdue(seen.unknown, missed.unknown, now, recall_seconds)
    if unknown:
        queues = _list_queues_of_pools(connection, now, late_seconds)
        unknown = {row.key for row in rows if row.key in unknown and row.queue in queues}
    lost_rows = [row for row in rows if row.key in lost]
    found = _recall_lost_rows(connection, broker, lost_rows, seen, now)
    return replace(
        found,
        without_redis=recall(connection, sorted(unknown)) if unknown else [],
        error=missed.error or found.error,
    )


def _list_queues_of_pools(connection: Connection, now: datetime, late_seconds: float) -> set[str]:
    """Return the queues to which our workers listen, which take jobs without Redis."""
    parameters = {"now": now, "late_seconds": late_seconds}
    return {name for (name,) in connection.execute(sql.load("list_queues_of_pools"), parameters)}


def recall_paused(connection: Connection, queue: str | None = None) -> list[tuple[str, int, int]]:
    """Recall the `queued` jobs of one paused queue, or of all. Queues that drain are left out. Commits.

    Returns the recalled deliveries (queue, id, dispatch_no). See `recall_paused_tasks`, which does the same.
    """
    return _recall_paused(connection, "list_queued_in_paused", {"queue": queue})


def recall_paused_tasks(
    connection: Connection, task: str | None = None
) -> list[tuple[str, int, int]]:
    """Recall the `queued` jobs of one paused task, or of all. Commits.

    Returns the recalled deliveries (queue, id, dispatch_no). Nobody can claim them any more; the caller
    removes them from Redis. It is called right after a pause. The recall loop calls it again, because a
    dispatcher that read before the pause may commit after it. The write is fenced by `dispatch_no`,
    so a job that a worker claims meanwhile is not recalled. Jobs that a worker has reserved are not recalled
    either, because a crash of Postgres may have lost their claim.
    """
    return _recall_paused(connection, "list_queued_of_paused_tasks", {"task": task})


def _recall_paused(
    connection: Connection, statement: str, wanted: Mapping[str, str | None]
) -> list[tuple[str, int, int]]:
    found = connection.execute(sql.load(statement), {**wanted, "limit": _MOST_ROWS}).fetchall()
    reserved = {name for (name,) in connection.execute(sql.load("list_reserved_deliveries"))}
    rows = [row for row in (QueuedJob(*row) for row in found) if row.reserved_as not in reserved]
    recalled = set(recall(connection, [row.key for row in rows])) if rows else set()
    return sorted((row.queue, *row.key) for row in rows if row.key in recalled)


def find_missing(
    connection: Connection, queue: Queue, now: datetime, seconds: float
) -> tuple[int, list[QueuedJob]]:
    """Return how many jobs of this queue should be in Redis, and those whose delivery is nowhere.

    Jobs that a worker has reserved, and those that were dispatched less than `seconds` ago, are left out.
    Locks nothing. Raises `RedisError`.
    """
    wanted = {"queue": queue.name, "now": now, "seconds": seconds, "limit": _MOST_ROWS}
    found = connection.execute(sql.load("list_queued_of_queue"), wanted).fetchall()
    reserved = {name for (name,) in connection.execute(sql.load("list_reserved_deliveries"))}
    rows = [row for row in (QueuedJob(*row) for row in found) if row.reserved_as not in reserved]
    missed = MissedJobs()
    _look_for(queue, rows, now, missed)
    return len(rows), [row for row in rows if row.key in missed.absent]


def recall_missing(
    connection: Connection, broker: Broker, queue: Queue, now: datetime, seconds: float
) -> tuple[list[Key], list[Key]]:
    """Recall the jobs that `find_missing` finds; return those, and those that RQ failed. Commits.

    One look is enough for an operator: a delivery that appears again is outdated by its dispatch number.
    Raises `RedisError`.
    """
    _, rows = find_missing(connection, queue, now, seconds)
    failed = set(_failed_by_rq(queue, rows))
    ended = endings.count_failed_deliveries(connection, sorted(failed), now) if failed else []
    counted = [(job.id, job.dispatch_no) for job in ended]
    lost = [row.key for row in rows if row.key not in failed]
    recalled = recall(connection, lost) if lost else []
    gone = {*counted, *recalled}
    remove = [(row.queue, *row.key) for row in rows if row.key in gone]
    remove_deliveries(broker, remove, quick=True)
    return recalled, counted


def find_places(
    connection: Connection, broker: Broker, ids: Iterable[int], now: datetime
) -> dict[int, DeliveryPlace]:
    """Return where the delivery of each of these jobs is that are `queued` and not reserved.

    Locks nothing. Postgres is read before Redis, in which a delivery is looked for in the order in which it
    moves: so one that moves is seen. A Redis that does not answer costs 0.2 s.
    """
    found = connection.execute(sql.load("list_deliveries_of_jobs"), {"ids": list(ids)}).fetchall()
    by_queue = _by_queue(QueuedJob(*row) for row in found)
    reserved = {name for (name,) in connection.execute(sql.load("list_reserved_deliveries"))}
    places: dict[int, DeliveryPlace] = {}
    for queues in by_redis(broker.queue(name, quick=True) for name in by_queue):
        is_silent = False
        for queue in queues:
            rows = by_queue[queue.name]
            try:
                at = None if is_silent else find_deliveries(queue, [row.rq_id for row in rows], now)
            except RedisError:
                at, is_silent = None, True
            for row in rows:
                is_held = row.reserved_as in reserved
                place = "held" if is_held else "unknown" if at is None else at.place_of(row.rq_id)
                places[row.id] = DeliveryPlace(row.dispatch_no, place)
    return places


def read_page(
    connection: Connection, now: datetime, after: int, seconds: float
) -> tuple[list[QueuedJob], int]:
    """Return queued jobs with ids above `after`, and the `after` of the next pass; 0 begins again."""
    page = {"now": now, "after": after, "seconds": seconds, "limit": _MOST_ROWS}
    found = connection.execute(sql.load("list_queued_jobs"), page).fetchall()
    rows = [QueuedJob(*row) for row in found]
    return rows, rows[-1].id if len(rows) == _MOST_ROWS else 0


def _by_queue(rows: Iterable[QueuedJob]) -> dict[str, list[QueuedJob]]:
    found: dict[str, list[QueuedJob]] = {}
    for row in rows:
        found.setdefault(row.queue, []).append(row)
    return found


def find_missed(broker: Broker, rows: list[QueuedJob], now: datetime) -> MissedJobs:
    """Return the rows that are not in the lists of their queues, and that RQ does not run."""
    missed = MissedJobs()
    unasked, missed.error = _ask(
        broker, rows, lambda queue, there: _look_for(queue, there, now, missed)
    )
    missed.unknown = {row.key for row in unasked}
    return missed


def _ask(
    broker: Broker, rows: Iterable[QueuedJob], ask: Callable[[Queue, list[QueuedJob]], None]
) -> tuple[set[QueuedJob], EngineUnavailable | None]:
    """Call `ask` for each queue of these rows; return the rows of those whose Redis does not answer.

    It is asked no more in this pass; the others are.
    """
    unasked: set[QueuedJob] = set()
    error = None
    by_queue = _by_queue(rows)
    for queues in by_redis(map(broker.queue, by_queue)):
        for at, queue in enumerate(queues):
            try:
                ask(queue, by_queue[queue.name])
            except RedisError as silence:
                error = unavailable(silence)
                unasked |= {row for left in queues[at:] for row in by_queue[left.name]}
                break
    return unasked, error


def _look_for(queue: Queue, rows: list[QueuedJob], now: datetime, missed: MissedJobs) -> None:
    found = find_deliveries(queue, [row.rq_id for row in rows], now)
    certain = found.listed | found.running
    for row in rows:
        if row.rq_id not in certain:
            (missed.parked if row.rq_id in found.intermediate else missed.absent).add(row.key)


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
    connection: Connection, broker: Broker, rows: list[QueuedJob], seen: Suspects, now: datetime
) -> Recalled:
    """Recall these rows, or count them as failed. One whose Redis falls silent now stays a suspect."""
    failed: list[Key] = []
    if not rows:
        return Recalled(seen, [], [])
    unasked, error = _ask(
        broker, rows, lambda queue, there: failed.extend(_failed_by_rq(queue, there))
    )
    counted = [
        (job.id, job.dispatch_no)
        for job in endings.count_failed_deliveries(connection, failed, now)
    ]
    lost = [row.key for row in rows if row not in unasked and row.key not in set(failed)]
    recalled = recall(connection, lost)
    gone = {*counted, *recalled}
    try_remove_deliveries(broker, [(row.queue, *row.key) for row in rows if row.key in gone])
    left = replace(
        seen,
        absent={key: since for key, since in seen.absent.items() if key not in gone},
        parked={key: since for key, since in seen.parked.items() if key not in gone},
    )
    return Recalled(left, recalled, counted, error=error)


def _failed_by_rq(queue: Queue, rows: list[QueuedJob]) -> list[Key]:
    hashes = read_hashes(queue.connection, [row.rq_id for row in rows])
    failed = JobStatus.FAILED.value
    return [row.key for row in rows if (found := hashes.get(row.rq_id)) and found.status == failed]
