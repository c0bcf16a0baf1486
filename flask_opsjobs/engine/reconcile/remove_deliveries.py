"""Removes deliveries from RQ: outdated ones, and orphan deliveries that have no job."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from operator import itemgetter

from redis import RedisError
from rq import Queue
from rq.executions import Execution, ExecutionRegistry
from rq.registry import StartedJobRegistry

from ...core import sql
from ...core.db import Connection
from ...core.redis_facts import DeliveryPlace
from ..redis.broker import Broker, parse_rq_id, rq_id
from ..redis.connections import by_redis
from ..redis.reads import (
    Hash,
    find_deliveries,
    read_failed,
    read_hashes,
    read_running,
    scan_deliveries,
)

_log = logging.getLogger("flask_opsjobs.lifeline")
# Of the failed deliveries of a queue, so many newest ones are looked at.
_MOST_FAILED = 10_000


def remove_deliveries(
    broker: Broker, deliveries: Iterable[tuple[str, int, int]], *, quick: bool = False
) -> None:
    """Remove deliveries (queue, id, dispatch_no) and all that RQ stores about them. Raises `RedisError`.

    Otherwise RQ would later report the delivery of a rescued job as abandoned, and its hash would stay for
    ever. A live worker may still run such a job; its outcome is then rejected by the fence. `quick` limits
    each call to 0.2 s, for a request or an operator.
    """
    for name, group in groupby(sorted(deliveries), key=itemgetter(0)):
        queue = broker.queue(name, quick=quick)
        rq_ids = {rq_id(job_id, number) for _, job_id, number in group}
        _forget_running(queue, rq_ids)
        broker.forget(name, rq_ids, quick=quick)


def try_remove_deliveries(broker: Broker, deliveries: Iterable[tuple[str, int, int]]) -> None:
    """Call `remove_deliveries`, but only log when Redis does not answer: the deliveries are orphans then."""
    try:
        remove_deliveries(broker, deliveries)
    except RedisError as error:
        _log.info("old deliveries stay in Redis for now (%s)", type(error).__name__)


def _forget_running(queue: Queue, rq_ids: set[str]) -> None:
    registry = queue.started_job_registry.key
    entries = read_running(queue)
    with queue.connection.pipeline() as pipe:
        for entry in entries:
            of_job = StartedJobRegistry.parse_job_id(entry)
            if of_job in rq_ids:
                execution = Execution.from_composite_key(entry, queue.connection)
                pipe.zrem(registry, entry)
                pipe.delete(execution.key)
        for of_job in rq_ids:
            pipe.delete(ExecutionRegistry(of_job, queue.connection).key)
        pipe.execute()


@dataclass(frozen=True)
class OrphanScan:
    """The state of a scan of one Redis: its cursor, and the deliveries without a row that it met before."""

    cursor: int = 0
    met: frozenset[str] = frozenset()


def remove_orphan_deliveries(
    connection: Connection, broker: Broker, queue: Queue, scan: OrphanScan, now: datetime
) -> tuple[OrphanScan, list[str]]:
    """Scan one step of a Redis and remove the orphan deliveries that were met twice; return their RQ ids.

    Redis is read before Postgres, so the row of every delivery that is found was committed before. Deliveries
    that expire by themselves, that RQ runs, or that a worker has reserved are left alone. Raises
    `RedisError`.
    """
    cursor, found = scan_deliveries(queue.connection, scan.cursor)
    hashes = {
        rq_id: hash_
        for rq_id, hash_ in read_hashes(queue.connection, found).items()
        if not hash_.expires
    }
    without_row = _without_row(connection, hashes)
    again = without_row & scan.met
    removed = _remove(broker, {rq_id: hashes[rq_id] for rq_id in again}, now)
    met = (scan.met - set(found)) | (without_row - set(removed))
    return OrphanScan(cursor, frozenset(met)), removed


def _without_row(connection: Connection, rq_ids: Iterable[str]) -> set[str]:
    keys = {rq_id: key for rq_id in rq_ids if (key := parse_rq_id(rq_id)) is not None}
    if not keys:
        return set()
    pairs = list(keys.values())
    parameters = {"ids": [id for id, _ in pairs], "dispatch_nos": [number for _, number in pairs]}
    valid = set(connection.execute(sql.load("find_valid_deliveries"), parameters).fetchall())
    reserved = {name for (name,) in connection.execute(sql.load("list_reserved_deliveries"))}
    return {
        rq_id
        for rq_id, (id, number) in keys.items()
        if (id, number) not in valid
        if f"{id}-{number}" not in reserved
    }


def _remove(broker: Broker, hashes: Mapping[str, Hash], now: datetime) -> list[str]:
    removed: list[str] = []
    for name in {hash_.queue for hash_ in hashes.values()}:
        ours = [rq_id for rq_id, hash_ in hashes.items() if hash_.queue == name]
        queue = broker.queue(name or "default")
        running = find_deliveries(queue, ours, now).running
        orphaned = [rq_id for rq_id in ours if rq_id not in running]
        broker.forget(queue.name, orphaned)
        removed += orphaned
    return removed


def list_orphans_of_queue(connection: Connection, queue: Queue, now: datetime) -> list[str]:
    """Return the RQ ids of the orphan deliveries in the lists of a queue, without those that RQ runs.

    Redis is read before Postgres, as by `remove_orphan_deliveries`. Locks nothing. Raises `RedisError`.
    """
    at = find_deliveries(queue, (), now)
    failed = read_failed(queue, _MOST_FAILED)
    return sorted(_without_row(connection, (at.listed | at.intermediate | failed) - at.running))


def find_places_of_deliveries(
    broker: Broker, deliveries: Collection[tuple[int, int]], queues: Iterable[str], now: datetime
) -> dict[tuple[int, int], DeliveryPlace]:
    """Return where these deliveries (id, dispatch_no) are, with or without a job; none that is nowhere.

    `queues` name every Redis to ask. While one of them is silent, the place of what the others do not have is
    `unknown`. A Redis that does not answer costs 0.2 s.
    """
    ids = {rq_id(*key): key for key in deliveries}
    places: dict[tuple[int, int], DeliveryPlace] = {}
    is_silent = False
    for on_redis in by_redis(broker.queue(name, quick=True) for name in queues):
        try:
            places |= _look_in_redis(broker, on_redis, ids, now)
        except RedisError:
            is_silent = True
    if is_silent:
        unknown = {key: DeliveryPlace(key[1], "unknown") for key in ids.values()}
        return unknown | places
    return places


def _look_in_redis(
    broker: Broker, queues: list[Queue], ids: Mapping[str, tuple[int, int]], now: datetime
) -> dict[tuple[int, int], DeliveryPlace]:
    hashes = read_hashes(queues[0].connection, ids)
    names = {hash_.queue or "default" for hash_ in hashes.values()}
    if len(hashes) < len(ids):  # a list may still have what RQ has no record of
        names |= {queue.name for queue in queues}
    places = {
        ids[each]: DeliveryPlace(ids[each][1], "kept", hash_.queue or "default")
        for each, hash_ in hashes.items()
    }
    for name in sorted(names):
        found = find_deliveries(broker.queue(name, quick=True), ids, now)
        for each, key in ids.items():
            if (place := found.place_of(each)) != "nowhere":
                places[key] = DeliveryPlace(key[1], place, name)
    return places
