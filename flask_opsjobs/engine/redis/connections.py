"""Connects to the Redis of each queue: with a client for the engine, or with one that only reads, for pages.

`OPSJOBS_REDIS_URL` names the Redis of all queues. Without it, the Redis of a queue is that of the host's
Flask-RQ, or `redis://localhost:6379/0` if the host has no Flask-RQ. The read-only clients remember which
Redis did not answer, so that the next page does not wait for it again.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import Any

from flask import Flask
from redis import Redis, RedisError
from redis.backoff import NoBackoff
from redis.client import Pipeline
from redis.exceptions import ConnectionError as NoConnection
from redis.exceptions import TimeoutError as NoAnswer
from redis.retry import Retry
from rq import Queue
from rq.serializers import DefaultSerializer, Serializer
from typing_extensions import override

from ...core.guards import Answering
from ...core.redis_facts import UnreachableRedis
from ...errors import ConfigError, EngineUnavailable

_DEFAULT_URL = "redis://localhost:6379/0"
# The place of the Redis on which the queue of this name is. The settings may name no other place so.
OWN = "default"
# The commands that a read-only client sends. It refuses all others, including those of later Redis versions.
READS = frozenset().union(
    {"INFO", "PING", "PUBSUB", "TIME"},
    {"EXISTS", "PTTL", "SCAN", "TTL", "TYPE"},
    {"GET", "MGET"},
    {"HEXISTS", "HGET", "HGETALL", "HKEYS", "HLEN", "HMGET", "HSTRLEN"},
    {"LINDEX", "LLEN", "LPOS", "LRANGE"},
    {"SCARD", "SISMEMBER", "SMEMBERS"},
    {"ZCARD", "ZCOUNT", "ZRANGE", "ZRANGEBYSCORE", "ZRANK", "ZREVRANGE", "ZSCORE"},
    {"XLEN", "XRANGE", "XREVRANGE"},
)


class WriteOnlySerializer:
    """Writes like another serializer, RQ's pickle by default. Its `loads` raises.

    So RQ cannot unpickle in a web or loop process. Workers can read what it writes.
    """

    def __init__(self, serializer: Serializer | None = None) -> None:
        self._serializer = serializer or DefaultSerializer

    def dumps(self, value: object, /) -> bytes:
        """Return the bytes that the other serializer writes."""
        return self._serializer.dumps(value)

    def loads(self, _data: bytes, /) -> object:
        """Raise `RuntimeError`."""
        raise RuntimeError("flask_opsjobs never unpickles in this process")


@dataclass(frozen=True)
class Wire:
    """The connection to a queue: a Redis client, and the serializer that its workers use."""

    redis: Redis
    serializer: Serializer | None

    @cached_property
    def reader(self) -> ReadOnlyRedis:
        """The client for pages, on the same pool."""
        return ReadOnlyRedis(self.redis)


class RedisConnections:
    """The wires of one app, made at first use, and made again in a forked child."""

    def __init__(
        self, app: Flask, url: str | None, labelled_urls: Mapping[str, str] = MappingProxyType({})
    ) -> None:
        self._extensions = app.extensions
        self._app = app
        self._url = url
        self._labelled_urls = labelled_urls
        self._labelled: dict[tuple[str, bool], Redis] = {}
        # Held by each client while it makes a socket.
        self._connect_lock: AbstractContextManager[object] = nullcontext()
        self._lock = threading.Lock()
        self._wires: dict[tuple[str, bool], Wire] = {}
        self._pid = os.getpid()

    def connect_with(self, lock: AbstractContextManager[object]) -> None:
        """Let all clients hold this lock while they make a socket, also those of wires that were made before.

        To find an address takes locks of the C library, which must be free when a process forks. They do not
        hold it while Redis lets them wait for its first answer: nobody could fork, log or connect meanwhile.
        """
        self._connect_lock = lock
        self.forget()

    def wire(self, queue: str, *, quick: bool = False) -> Wire:
        """Return the wire of a queue. A call takes at most 5 s, with `quick` 0.2 s, and is not retried."""
        with self._lock:
            if self._pid != os.getpid():
                self._wires, self._labelled, self._pid = {}, {}, os.getpid()
            key = (queue, quick)
            if key not in self._wires:
                self._wires[key] = self._make(queue, quick)
            return self._wires[key]

    def labelled(self, label: str, *, quick: bool = False) -> Redis:
        """Return a client of the Redis with this label in `OPSJOBS_RQ_REDIS_URLS`, as limited as a wire."""
        with self._lock:
            key = (label, quick)
            if key not in self._labelled:
                client = Redis.from_url(self._labelled_urls[label])
                self._labelled[key] = _with_limits(client, _seconds(quick), self._connect_lock)
            return self._labelled[key]

    def list_flask_rq_queues(self) -> list[str]:
        """Return the names of the queues that Flask-RQ has; none when `OPSJOBS_REDIS_URL` counts instead."""
        extension = self._extensions.get("rq") if self._url is None else None
        if extension is None:
            return []
        with self._app.app_context():
            return sorted(extension.queues)

    def make_wire(self, queue: str) -> Wire:
        """Return a wire that nobody else uses."""
        return self._make(queue, quick=False)

    def forget(self) -> None:
        """Forget all wires, in a forked child: another thread may have held the lock at the fork."""
        self._lock = threading.Lock()
        self._wires, self._labelled, self._pid = {}, {}, os.getpid()

    def descriptors(self) -> list[int]:
        """Return the descriptors of all open connections, which a forked child must let go."""
        return [each for client in self._clients() for each in descriptors_of_pool(client)]

    def close(self) -> None:
        """Close all connections. The next call opens one again."""
        for client in self._clients():
            client.connection_pool.disconnect()

    def _clients(self) -> list[Redis]:
        wires = [wire.redis for wire in list(self._wires.values())]
        return [*wires, *list(self._labelled.values())]

    def require_answer(self, queue: str) -> None:
        """Ping the Redis of a queue. Raises `EngineUnavailable` with its address when it does not answer."""
        redis = self.wire(queue).redis
        where = redis.connection_pool.connection_kwargs
        address = where.get("path") or f"{where.get('host', '?')}:{where.get('port', '?')}"
        try:
            redis.ping()
        except RedisError as error:
            raise EngineUnavailable(
                f"Redis at {address} does not answer ({type(error).__name__}: {error}): start it, or set "
                "OPSJOBS_REDIS_URL to its address"
            ) from error

    def _make(self, queue: str, quick: bool) -> Wire:
        like, serializer = self._of_flask_rq(queue) if self._url is None else (None, None)
        client = like if like is not None else Redis.from_url(self._url or _DEFAULT_URL)
        return Wire(_with_limits(client, _seconds(quick), self._connect_lock), serializer)

    def _of_flask_rq(self, queue: str) -> tuple[Redis | None, Serializer | None]:
        extension = self._extensions.get("rq")
        if extension is None:
            return None, None
        with self._app.app_context():
            queues = extension.queues
        # Takes only the connection and the serializer from Flask-RQ: under TESTING its queues are
        # synchronous, so a push to them would run the job.
        found = queues.get(queue) or queues.get("default") or next(iter(queues.values()), None)
        if found is None:
            raise ConfigError(
                "RQ_QUEUES is empty: name at least one queue, or set OPSJOBS_REDIS_URL"
            )
        return found.connection, found.serializer


def _seconds(quick: bool) -> float:
    return 0.2 if quick else 5.0


def _with_limits(
    client: Redis, seconds: float, connect_lock: AbstractContextManager[object]
) -> Redis:
    """Return a client like this one, with a time-out of `seconds` and without redis-py's default retries."""
    pool = client.connection_pool

    class LockedConnection(pool.connection_class):  # type: ignore[name-defined,misc]
        @override
        def _connect(self) -> Any:
            with connect_lock:
                # Noted under the lock: a child that is forked next must know this socket, to let it go.
                self._sock = super()._connect()
                return self._sock

    kwargs = {
        # Leaves out the pool's internal entries: they would tie the new pool to the old one.
        **{
            key: value
            for key, value in pool.connection_kwargs.items()
            if not key.startswith(("orig_", "maint_"))
        },
        "socket_timeout": seconds,
        "socket_connect_timeout": seconds,
        "retry": Retry(NoBackoff(), 0),
        "retry_on_timeout": False,
        "retry_on_error": [],
    }
    own_pool = type(pool)(
        connection_class=LockedConnection, max_connections=pool.max_connections, **kwargs
    )
    return Redis(connection_pool=own_pool)


def descriptors_of_pool(redis: Redis) -> list[int]:
    """Return the descriptors of a client's open connections, of which redis-py tells nothing."""
    pool = redis.connection_pool
    connections = [
        *getattr(pool, "_available_connections", ()),
        *getattr(pool, "_in_use_connections", ()),
    ]
    socks = [getattr(connection, "_sock", None) for connection in connections]
    return [sock.fileno() for sock in socks if sock is not None and sock.fileno() >= 0]


class WriteRefused(RuntimeError):
    """A read-only client was asked to send a command that is not a read. Nothing was sent."""


# Whether each Redis answers, by `redis_name_of`. All apps and queues of this process share it.
_known: dict[str, Answering] = {}


def by_redis(queues: Iterable[Queue]) -> list[list[Queue]]:
    """Group these queues by the Redis that they live on."""
    found: dict[str, list[Queue]] = {}
    for queue in queues:
        found.setdefault(redis_name_of(queue.connection), []).append(queue)
    return list(found.values())


def name_place_of(queues: Sequence[Queue]) -> str:
    """Return the name of the place that the Redis of these queues is: one group of `by_redis`."""
    is_own = any(queue.name == OWN for queue in queues)
    return OWN if is_own else address_of(queues[0].connection)


def address_of(redis: Redis) -> str:
    """Return the address of a Redis, as `localhost:6379/0`, without its user and its password."""
    where = redis.connection_pool.connection_kwargs
    server = where.get("path") or f"{where.get('host', 'localhost')}:{where.get('port', 6379)}"
    return f"{server}/{where.get('db') or 0}"


def redis_name_of(redis: Redis) -> str:
    """Return a name of the Redis server and database, the same for all clients of it."""
    kwargs = redis.connection_pool.connection_kwargs
    return " ".join(repr(kwargs.get(key)) for key in ("host", "port", "path", "db", "username"))


@contextmanager
def _asking(redis: Redis) -> Iterator[None]:
    """Enclose calls to this Redis, and remember whether it answers.

    While it is known not to answer, raise an error of the driver at once instead of waiting.
    """
    known = _known.setdefault(redis_name_of(redis), Answering())
    with known.asking(_is_silence, lambda: NoConnection("Redis did not answer a moment ago")):
        yield


def _is_silence(error: BaseException) -> bool:
    return isinstance(error, NoConnection | NoAnswer)


def find_unreachable(connections: RedisConnections, names: Iterable[str]) -> list[UnreachableRedis]:
    """Return the Redis servers of these queues that do not answer. Takes at most 0.4 s for each of them."""
    found = []
    for queues in by_redis(read_only_queue(connections, name) for name in sorted(names)):
        try:
            queues[0].connection.ping()
        except RedisError:
            known = _known[redis_name_of(queues[0].connection)]
            if known.unanswered_since is not None:
                names_there = tuple(queue.name for queue in queues)
                found.append(
                    UnreachableRedis(
                        name_place_of(queues),
                        names_there,
                        known.unanswered_since,
                        known.answered_at,
                    )
                )
    return found


class ReadOnlyRedis(Redis):
    """A client that only reads, on the connection pool of another client."""

    def __init__(self, like: Redis) -> None:
        super().__init__(connection_pool=like.connection_pool)

    @override
    def execute_command(self, *args: Any, **options: Any) -> Any:
        """Send a read; raises `WriteRefused` for anything else."""
        _refuse(args)
        with _asking(self):
            return super().execute_command(*args, **options)

    @override
    def pipeline(self, transaction: bool = False, shard_hint: Any = None) -> ReadOnlyPipeline:
        """Return a pipeline that only reads. It is never a transaction, because that needs MULTI."""
        return ReadOnlyPipeline(self.connection_pool, self.response_callbacks, False, shard_hint)


class ReadOnlyPipeline(Pipeline):
    """Several reads in one round trip."""

    @override
    def execute_command(self, *args: Any, **options: Any) -> Any:
        """Add a read to the pipeline; raises `WriteRefused` for anything else."""
        _refuse(args)
        return super().execute_command(*args, **options)

    @override
    def execute(self, raise_on_error: bool = True) -> list[Any]:
        """Send the reads and return the answers."""
        with _asking(self):
            return super().execute(raise_on_error)


def read_only_queue(connections: RedisConnections, name: str) -> Queue:
    """Return RQ's queue on a read-only client with a time-out of 0.2 s. It cannot unpickle."""
    wire = connections.wire(name, quick=True)
    return Queue(name, connection=wire.reader, serializer=WriteOnlySerializer(wire.serializer))


def command_name(args: Sequence[Any]) -> str:
    """Return the name of a command in capitals: `CONFIG` for `CONFIG GET`."""
    command = args[0].decode() if isinstance(args[0], bytes) else str(args[0])
    return command.split(maxsplit=1)[0].upper()


def _refuse(args: tuple[Any, ...]) -> None:
    name = command_name(args)
    if name not in READS:
        raise WriteRefused(f"{name} is not a read: this client of Redis only reads")
