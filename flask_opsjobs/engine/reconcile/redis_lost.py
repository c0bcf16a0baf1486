"""Finds out whether a Redis has lost what it held: it is another one, or an older one, or it evicts keys."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from psycopg.types.json import Jsonb
from redis import Redis
from rq import Queue

from ...core import sql
from ...core.db import Connection
from ...core.words import counted

# After a restart, so many keys that never expire must be missing, or a whole queue.
_FEWEST_LOST = 100


@dataclass(frozen=True)
class RedisIdentity:
    """What tells one life of a Redis from another.

    `keys` counts those that never expire: others vanish by themselves. `queues` counts RQ's queues, with the
    empty ones. `histories` are the names of the replication history, the own and the one before; `offset` is
    how far it has come in it.
    """

    run_id: str
    keys: int
    queues: int
    evicted: int
    histories: tuple[str, str]
    offset: int


def identify_redis(redis: Redis) -> RedisIdentity:
    """Ask a Redis who it is, in one round trip. Raises `RedisError`."""
    with redis.pipeline(transaction=False) as pipe:
        pipe.info()
        pipe.scard(Queue.redis_queues_keys)
        info, queues = pipe.execute()
    database = redis.connection_pool.connection_kwargs.get("db") or 0
    keyspace: dict[str, Any] = info.get(f"db{database}", {})
    return RedisIdentity(
        run_id=str(info.get("run_id", "")),
        keys=keyspace.get("keys", 0) - keyspace.get("expires", 0),
        queues=queues,
        evicted=int(info.get("evicted_keys", 0)),
        histories=(str(info.get("master_replid", "")), str(info.get("master_replid2", ""))),
        offset=int(info.get("master_repl_offset", 0)),
    )


def list_identities(connection: Connection) -> dict[str, RedisIdentity]:
    """What each Redis was when any process last looked, by the name of its place."""
    rows = connection.execute(sql.load("list_redis_identities"))
    return {place: _read(identity) for place, identity in rows}


def keep_identities(
    connection: Connection, identities: Mapping[str, RedisIdentity], now: datetime
) -> None:
    """Keep what each Redis is now, for the next look. The caller commits."""
    values = {
        "places": list(identities),
        "identities": [Jsonb(asdict(each)) for each in identities.values()],
        "now": now,
    }
    connection.execute(sql.load("keep_redis_identities"), values)


def _read(identity: Mapping[str, Any]) -> RedisIdentity:
    own, before = identity["histories"]
    return RedisIdentity(**{**identity, "histories": (own, before)})


def find_loss(before: RedisIdentity, now: RedisIdentity, *, was_asleep: bool) -> str | None:
    """What a Redis has lost since the look before, as a sentence; None when nothing shows that.

    After a restart that read everything from its disk it has all queues. Within one history its offset never
    goes back. When the loops were asleep in between, workers may have emptied the queues: that there are
    fewer keys shows nothing then.
    """
    if before.run_id == now.run_id:
        evicted = now.evicted - before.evicted
        return f"It evicted {evicted:,} keys, because its memory is full" if evicted > 0 else None
    if before.histories[0] in now.histories and now.offset < before.offset:
        gone = before.offset - now.offset
        return f"It was started again from an older state: {gone:,} bytes of writes are gone"
    has_few = before.keys - now.keys >= _FEWEST_LOST and 2 * now.keys < before.keys
    if now.queues < before.queues or (has_few and not was_asleep):
        return f"It was started again with {_holding(now)}; before, it had {_holding(before)}"
    return None


def _holding(one: RedisIdentity) -> str:
    return f"{counted(one.queues, 'queue')} and {counted(one.keys, 'lasting key')}"
