"""Lists the Redis servers of the bridge, numbered as in rq-dashboard, each with a client that only reads."""

from __future__ import annotations

from dataclasses import dataclass

from redis import Redis, RedisError

from ..engine.adopted.places import list_places
from ..engine.redis.connections import address_of
from ..host import Host
from .guard import BridgeRedis


@dataclass(frozen=True)
class Instance:
    """A Redis: its number in addresses, its label, and its address without user and password.

    `label` is the name of its place in `jobs.rq_place`. A call of `redis` takes at most 0.2 s.
    """

    number: int
    label: str
    address: str
    redis: Redis

    def find_problem(self) -> str | None:
        """The name of the error with which it does not answer; None when it answers."""
        try:
            self.redis.ping()
        except RedisError as error:
            return type(error).__name__
        return None


def list_instances(host: Host) -> list[Instance]:
    """The Redis servers that the bridge reads: those whose plain jobs are adopted, in the same order."""
    queues = {task.declared.queue for task in host.tasks.values()}
    return [
        Instance(number, place.name, address_of(place.redis), BridgeRedis(place.redis))
        for number, place in enumerate(list_places(host, queues, quick=True))
    ]
