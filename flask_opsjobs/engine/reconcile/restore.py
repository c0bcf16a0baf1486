"""Puts back at once what a lost or rewound Redis held of managed jobs, and names plain jobs that it lost.

The recall loop does the same within seconds for what is lost, and a worker refuses what is outdated. So a
process that is killed in the middle leaves nothing behind, and `restore` may be repeated. After a restore of
Postgres it removes all deliveries instead.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from rq import Queue

from ...core import sql
from ...core.db import Connection
from ...host import Host
from ...jobs.adopted.transitions import OpenJob
from ..adopted.lost import end_lost, find_lost
from ..adopted.places import RedisPlace, list_places
from ..dispatch.dispatch import Dispatcher, recall
from ..redis.broker import Broker, broker_of, parse_rq_id
from ..redis.connections import by_redis
from ..redis.reads import answering, read_hashes, read_ids, scan_deliveries
from .recall import Key, QueuedJob, find_missed, read_page
from .remove_deliveries import remove_deliveries

# A younger dispatch may be on its way to Redis: it is left to the recall loop.
_YOUNGEST_SECONDS = 1.0
# So many jobs are recalled at once, so that no lock is held for long.
_AT_ONCE = 1_000


@dataclass(frozen=True)
class Found:
    """What Redis has of the managed jobs, by queue, and which plain jobs it lacks, by Redis.

    `queued` is how many Postgres calls queued, of which Redis lacks the delivery of `lost`. A `parked`
    delivery was popped by a worker and not claimed; the recall loop recalls it after a while. The job of an
    `outdated` delivery has ended or was dispatched again. Of the jobs in `plain` RQ has no record, and nobody
    saw their end.
    """

    queued: Counter[str] = field(default_factory=Counter)
    lost: dict[str, set[Key]] = field(default_factory=lambda: defaultdict(set))
    parked: Counter[str] = field(default_factory=Counter)
    outdated: dict[str, set[Key]] = field(default_factory=lambda: defaultdict(set))
    plain: dict[str, list[OpenJob]] = field(default_factory=dict)

    @property
    def queues(self) -> list[str]:
        """The queues about which there is something to say, by name."""
        return sorted({*self.queued, *self.lost, *self.parked, *self.outdated})


@dataclass(frozen=True)
class Restored:
    """What `restore` did: what it found, and how many jobs were recalled, dispatched and removed.

    `unknown` is how many plain jobs ended as `unknown`.
    """

    found: Found
    recalled: int
    dispatched: int
    removed: int
    unknown: int


def find_lacks(host: Host, connection: Connection, queues: Sequence[str], now: datetime) -> Found:
    """Compare Redis with Postgres. Writes nothing, locks nothing.

    Redis is read before Postgres for outdated deliveries, and after it for lost ones: so a job that moves
    meanwhile is neither. Raises `EngineUnavailable` when a Redis does not answer.
    """
    broker, found = broker_of(host), Found()
    with answering():
        stored = {id: name for name, ids in _list_deliveries(broker, queues) for id in ids}
    for key in _find_outdated(connection, stored):
        found.outdated[stored[key]].add(key)
    reserved = {name for (name,) in connection.execute(sql.load("list_reserved_deliveries"))}
    for rows in _pages(connection, now, _YOUNGEST_SECONDS):
        found.queued.update(row.queue for row in rows)
        free = [row for row in rows if row.reserved_as not in reserved]
        missed = find_missed(broker, free, now)
        if missed.error is not None:
            raise missed.error
        for row in free:
            if row.key in missed.absent:
                found.lost[row.queue].add(row.key)
            found.parked[row.queue] += row.key in missed.parked
    with answering():
        for place in _list_adopted_places(host, queues):
            if lost := find_lost(connection, place):
                found.plain[place.name] = lost
    return found


def restore(host: Host, connection: Connection, queues: Sequence[str], now: datetime) -> Restored:
    """Recall what Redis lacks, remove what is outdated, and dispatch as the prefetch of each queue allows.

    Plain jobs that Redis lacks end as `unknown`, since their payloads were in Redis only. A job or a delivery
    is lost, and a delivery is outdated, when two looks say so. Each step is fenced, so any number of loops
    and workers may run. Commits page by page. Raises `EngineUnavailable` when a Redis does not answer.
    """
    first, second = (find_lacks(host, connection, queues, now) for _ in range(2))
    broker, recalled, removed = broker_of(host), 0, 0
    for queue in second.queues:
        outdated = sorted(first.outdated[queue] & second.outdated[queue])
        with answering():
            remove_deliveries(broker, [(queue, *key) for key in outdated])
        removed += len(outdated)
        lost = sorted(first.lost[queue] & second.lost[queue])
        for start in range(0, len(lost), _AT_ONCE):
            gone = recall(connection, lost[start : start + _AT_ONCE])
            recalled += len(gone)
            with answering():
                remove_deliveries(broker, [(queue, *key) for key in gone])
    with answering():
        dispatched = Dispatcher(connection, broker, host.settings).dispatch_all(now)
    unknown = sum(
        end_lost(connection, place, _in_both(first, second, place), now)
        for place in _list_adopted_places(host, queues)
    )
    return Restored(second, recalled, dispatched, removed, unknown)


def _list_adopted_places(host: Host, queues: Sequence[str]) -> list[RedisPlace]:
    return list_places(host, queues) if host.settings.adopt else []


def _in_both(first: Found, second: Found, place: RedisPlace) -> list[OpenJob]:
    before = set(first.plain.get(place.name, ()))
    return [job for job in second.plain.get(place.name, ()) if job in before]


def remove_all(
    host: Host, connection: Connection, queues: Sequence[str], now: datetime
) -> dict[str, int]:
    """Remove each delivery of ours from Redis, and make all queued jobs due again.

    For after a restore of Postgres to an earlier time: the numbers of these deliveries will be issued again.
    Returns how many deliveries were removed, by queue. The caller has made sure that no worker runs. Commits
    page by page. Raises `EngineUnavailable` when a Redis does not answer.
    """
    broker, removed = broker_of(host), Counter[str]()
    with answering():
        for queue, keys in _list_deliveries(broker, queues):
            remove_deliveries(broker, [(queue, *key) for key in keys])
            removed[queue] += len(keys)
    for rows in _pages(connection, now, 0):
        for start in range(0, len(rows), _AT_ONCE):
            recall(connection, [row.key for row in rows[start : start + _AT_ONCE]])
    return dict(removed)


def list_live_workers(connection: Connection, now: datetime, late_seconds: float) -> list[str]:
    """Return the names of the workers whose last heartbeat is fresh, also of plain RQ workers."""
    parameters = {"now": now, "late_seconds": late_seconds}
    return [name for (name,) in connection.execute(sql.load("list_live_workers"), parameters)]


def _list_deliveries(broker: Broker, queues: Iterable[str]) -> Iterator[tuple[str, set[Key]]]:
    """Yield each queue with the deliveries that its Redis has: in a list, in a registry, or as a hash only.

    A failed delivery that expires by itself is left out, since the recall loop counts it.
    """
    for of_one in by_redis(map(broker.queue, queues)):
        names = {queue.name for queue in of_one}
        by_queue: dict[str, set[str]] = {queue.name: read_ids(queue) for queue in of_one}
        for rq_id, name in _scan(of_one[0]):
            # The queue of a hash that names none, or an unknown one, does not matter for its removal.
            by_queue[name if name in names else of_one[0].name].add(rq_id)
        for name, ids in by_queue.items():
            keys = {key for rq_id in ids if (key := parse_rq_id(rq_id)) is not None}
            if keys:
                yield name, keys


def _scan(queue: Queue) -> Iterator[tuple[str, str]]:
    cursor = 0
    while True:
        cursor, ids = scan_deliveries(queue.connection, cursor)
        for rq_id, found in read_hashes(queue.connection, ids).items():
            if not found.expires:
                yield rq_id, found.queue or queue.name
        if not cursor:
            return


def _find_outdated(connection: Connection, keys: Iterable[Key]) -> set[Key]:
    """Return those deliveries whose job is neither queued nor started under their number."""
    pairs = sorted(keys)
    reserved = {name for (name,) in connection.execute(sql.load("list_reserved_deliveries"))}
    outdated = {key for key in pairs if f"{key[0]}-{key[1]}" not in reserved}
    for start in range(0, len(pairs), _AT_ONCE):
        page = pairs[start : start + _AT_ONCE]
        parameters = {"ids": [id for id, _ in page], "dispatch_nos": [no for _, no in page]}
        outdated -= set(
            connection.execute(sql.load("find_valid_deliveries"), parameters).fetchall()
        )
    return outdated


def _pages(connection: Connection, now: datetime, seconds: float) -> Iterator[list[QueuedJob]]:
    """Yield the queued jobs that were dispatched at least so long ago."""
    after = 0
    while True:
        rows, after = read_page(connection, now, after, seconds)
        yield rows
        if not after:
            return
