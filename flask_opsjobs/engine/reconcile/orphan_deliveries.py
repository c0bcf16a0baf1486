"""Removes orphan deliveries: deliveries of ours in Redis whose job is gone or has moved on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from rq import Queue

from ...core import sql
from ...core.db import Connection
from ..redis.broker import Broker
from ..redis.delivery import parse
from ..redis.reads import Hash, find_deliveries, read_hashes, scan_deliveries


@dataclass(frozen=True)
class OrphanDeliveries:
    """A walk through the keys of one Redis, and which deliveries without a row it met before."""

    cursor: int = 0
    met: frozenset[str] = frozenset()


def remove_orphan_deliveries(
    connection: Connection, broker: Broker, queue: Queue, orphans: OrphanDeliveries, now: datetime
) -> tuple[OrphanDeliveries, list[str]]:
    """One step through a Redis: remove deliveries whose row is gone or has moved on, met twice; their RQ ids.

    Redis is read first and Postgres after it, so a delivery that is found has its committed row already. What expires
    by itself, what RQ runs and what a living worker has reserved is left alone. Raises `RedisError`.
    """
    cursor, found = scan_deliveries(queue.connection, orphans.cursor)
    hashes = {
        one: said for one, said in read_hashes(queue.connection, found).items() if not said.expires
    }
    without_row = _without_row(connection, hashes)
    again = without_row & orphans.met
    removed = _remove(broker, {one: hashes[one] for one in again}, now)
    met = (orphans.met - set(found)) | (without_row - set(removed))
    return OrphanDeliveries(cursor, frozenset(met)), removed


def _without_row(connection: Connection, hashes: Mapping[str, Hash]) -> set[str]:
    keys = {one: key for one in hashes if (key := parse(one)) is not None}
    if not keys:
        return set()
    pairs = list(keys.values())
    asked = {"ids": [id for id, _ in pairs], "dispatch_nos": [number for _, number in pairs]}
    valid = set(connection.execute(sql.load("find_valid_deliveries"), asked).fetchall())
    reserved = {name for (name,) in connection.execute(sql.load("list_reserved_deliveries"))}
    return {
        one for one, (id, number) in keys.items() if (id, number) not in valid
        if f"{id}-{number}" not in reserved
    }  # fmt: skip


def _remove(broker: Broker, hashes: Mapping[str, Hash], now: datetime) -> list[str]:
    removed: list[str] = []
    for name in {said.queue for said in hashes.values()}:
        ours = [one for one, said in hashes.items() if said.queue == name]
        queue = broker.queue(name or "default")
        running = find_deliveries(queue, ours, now).running
        orphaned = [one for one in ours if one not in running]
        broker.forget(queue.name, orphaned)
        removed += orphaned
    return removed
