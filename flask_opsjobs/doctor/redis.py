"""Checks each Redis of the queues: whether it answers, its version, its memory and its latency."""

from __future__ import annotations

from collections.abc import Callable

from ..engine.redis.broker import broker_of
from ..engine.redis.servers import RedisServer, read_servers
from .check import ERROR, WARNING, CheckAnswer, CheckContext, DoctorCheck, error, ok, warning

_OLDEST_VERSION = (6, 2)
_MOST_MEMORY = 0.8
# Each dispatch and each plain RQ job costs several round trips.
_MOST_LATENCY_SECONDS = 0.05

Find = Callable[[RedisServer], CheckAnswer | None]


def _read_servers(context: CheckContext) -> list[RedisServer]:
    return list(read_servers(broker_of(context.host).connections, context.queues))


def _each(find: Find, fine: str) -> Callable[[CheckContext], CheckAnswer]:
    """A look at each Redis of the queues: the first answer, or `fine`."""

    def look(context: CheckContext) -> CheckAnswer:
        for server in context.once("servers", lambda: _read_servers(context)):
            if (answer := find(server)) is not None:
                return answer
        return ok(fine)

    return look


def _reachable(server: RedisServer) -> CheckAnswer | None:
    if server.problem is None:
        return None
    return error(
        f"Redis at {server.address} does not answer.",
        f"{server.problem}. Plain RQ jobs wait; managed jobs run from Postgres where our workers listen.",
        f"redis-cli -u redis://{server.address} ping",
    )


def _version(server: RedisServer) -> CheckAnswer | None:
    if tuple(int(part) for part in server.version.split(".")[:2]) >= _OLDEST_VERSION:
        return None
    oldest = ".".join(map(str, _OLDEST_VERSION))
    return error(
        f"Redis {server.version} at {server.address} is too old.", f"It must be {oldest} or newer."
    )


def _eviction(server: RedisServer) -> CheckAnswer | None:
    if not server.most_memory or server.eviction == "noeviction":
        return None
    return error(
        f"Redis at {server.address} drops keys when its memory is full.",
        f"Its maxmemory-policy is {server.eviction}: it would drop deliveries and plain RQ jobs.",
        "redis-cli config set maxmemory-policy noeviction",
    )


def _memory(server: RedisServer) -> CheckAnswer | None:
    used, most = server.used_memory, server.most_memory
    if used <= _MOST_MEMORY * most or not most:
        return None
    return warning(
        f"Redis at {server.address} uses {used / most:.0%} of its memory.",
        f"{used:,} of {most:,} bytes. When it is full, it refuses writes.",
        "redis-cli --bigkeys",
    )


def _cluster(server: RedisServer) -> CheckAnswer | None:
    if not server.is_cluster:
        return None
    return error(
        f"Redis at {server.address} is a cluster.", "RQ needs one server for all its keys."
    )


def _suspended(server: RedisServer) -> CheckAnswer | None:
    if not server.is_suspended:
        return None
    return error(
        f"All RQ workers of {server.address} are suspended by RQ's own command.",
        "No job starts through Redis.",
        "rq resume",
    )


def _prefix(server: RedisServer) -> CheckAnswer | None:
    if not server.foreign_prefixes:
        return None
    names = ", ".join(server.foreign_prefixes)
    return warning(
        f"RQ workers at {server.address} listen under another prefix of keys: {names}.",
        "None listens under the prefix of this process, so nobody runs what it hands to RQ. Give both the "
        "same RQ_KEY_PREFIX.",
    )


def _latency(server: RedisServer) -> CheckAnswer | None:
    if server.latency_seconds <= _MOST_LATENCY_SECONDS:
        return None
    return warning(
        f"Redis at {server.address} needs {server.latency_seconds * 1000:.0f} ms to answer.",
        "Each dispatch and each plain RQ job needs several round trips.",
        "redis-cli --latency",
    )


def _check(name: str, level: str, asks: str, find: Find, fine: str) -> DoctorCheck:
    return DoctorCheck(f"redis.{name}", (level,), asks, _each(find, fine), ("redis.cluster",))


CHECKS = (
    DoctorCheck(
        "redis.reachable",
        (ERROR,),
        "Redis answers",
        _each(_reachable, "Redis answers."),
        gives="Redis",
    ),
    _check("version", ERROR, "Redis is 6.2 or newer", _version, "Redis is new enough."),
    _check(
        "eviction",
        ERROR,
        "a Redis with maxmemory has maxmemory-policy noeviction",
        _eviction,
        "Redis drops no keys.",
    ),
    _check(
        "memory", WARNING, "Redis uses at most 80 % of its maxmemory", _memory, "Memory is free."
    ),
    DoctorCheck(
        "redis.cluster",
        (ERROR,),
        "Redis is no cluster",
        _each(_cluster, "Redis is no cluster."),
        ("redis.reachable",),
        gives="one Redis server",
    ),
    _check(
        "suspended",
        ERROR,
        "RQ's workers are not suspended",
        _suspended,
        "RQ's workers are not suspended.",
    ),
    _check(
        "prefix",
        WARNING,
        "workers of RQ listen under the prefix of keys of the app",
        _prefix,
        "No worker of RQ listens under another prefix only.",
    ),
    _check("latency", WARNING, "Redis answers within 50 ms", _latency, "Redis answers soon."),
)
