"""Finds the Redis servers whose plain jobs are adopted, by the names of their places."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from redis import Redis

from ...host import Host
from ..redis.broker import broker_of
from ..redis.connections import OWN, address_of, by_redis, name_place_of, redis_name_of


@dataclass(frozen=True)
class RedisPlace:
    """One Redis, under the name that its adopted jobs have in `jobs.rq_place`."""

    name: str
    redis: Redis


def list_places(host: Host, queues: Iterable[str], *, quick: bool = False) -> list[RedisPlace]:
    """Return each Redis once: those of these queues, those of Flask-RQ, and those that the settings name.

    The Redis of the queue `default` is the place `default`. Another Redis of Flask-RQ is named by its
    address, and one of `OPSJOBS_RQ_REDIS_URLS` by its label there. A Redis with several names gets the first.
    With `quick` a call of their clients takes at most 0.2 s.
    """
    broker = broker_of(host)
    names = sorted({OWN, *queues, *broker.connections.list_flask_rq_queues()}, key=_own_first)
    found = {
        redis_name_of(group[0].connection): RedisPlace(name_place_of(group), group[0].connection)
        for group in by_redis(broker.queue(name, quick=quick) for name in names)
    }
    for label in host.settings.rq_redis_urls:
        redis = broker.connections.labelled(label, quick=quick)
        found.setdefault(redis_name_of(redis), RedisPlace(label, redis))
    return list(found.values())


def find_redis(host: Host, place: str, queue: str) -> Redis | None:
    """Return a client for the Redis of a place; None when this app knows no such place.

    A call takes at most 0.2 s. `queue` is a queue there: Flask-RQ has a connection for each queue.
    """
    connections = broker_of(host).connections
    if place in host.settings.rq_redis_urls:
        return connections.labelled(place, quick=True)
    return connections.wire(queue, quick=True).redis if name_place(host, queue) == place else None


def name_place(host: Host, queue: str) -> str:
    """Return the name of the place on which a queue of this app is."""
    connections = broker_of(host).connections
    redis, own = (connections.wire(name, quick=True).redis for name in (queue, OWN))
    return OWN if redis_name_of(redis) == redis_name_of(own) else address_of(redis)


def _own_first(name: str) -> tuple[bool, str]:
    return name != OWN, name
