"""Finds the Redis of a queue: the host's Flask-RQ connection when it has one, else `OPSJOBS_REDIS_URL`."""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass
from typing import Any

from flask import Flask
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry
from rq.serializers import DefaultSerializer

from ...errors import ConfigError, EngineUnavailable

_DEFAULT_URL = "redis://localhost:6379/0"


class WriteOnlySerializer:
    """RQ's pickle serializer whose `loads` raises, so that RQ cannot unpickle in a web or loop process."""

    dumps = staticmethod(DefaultSerializer.dumps)

    @staticmethod
    def loads(_data: bytes, /) -> Any:
        raise RuntimeError("flask_opsjobs never unpickles in this process")


def write_only(serializer: Any) -> Any:
    """Return the serializer with a `loads` that raises. `dumps` is kept: workers must be able to read."""
    if serializer is None or serializer is DefaultSerializer:
        return WriteOnlySerializer
    return type(
        "WriteOnly",
        (),
        {"dumps": staticmethod(serializer.dumps), "loads": WriteOnlySerializer.loads},
    )


@dataclass(frozen=True)
class Wire:
    """The connection to a queue: a Redis client, and the serializer that its workers use."""

    redis: Redis
    serializer: Any


class RedisConnections:
    """The wires of one app, made at first use, and made again in a forked child."""

    def __init__(self, app: Flask, url: str | None) -> None:
        self._extensions = app.extensions
        self._app = app
        self._url = url
        self._lock = threading.Lock()
        self._wires: dict[tuple[str, bool], Wire] = {}
        self._pid = os.getpid()

    def wire(self, queue: str, *, quick: bool = False) -> Wire:
        """Return the wire of a queue. A call takes at most 5 s, with `quick` 0.2 s, and is not retried."""
        with self._lock:
            if self._pid != os.getpid():
                self._wires, self._pid = {}, os.getpid()
            key = (queue, quick)
            if key not in self._wires:
                self._wires[key] = self._make(queue, quick)
            return self._wires[key]

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
        return Wire(_with_limits(client, 0.2 if quick else 5.0), serializer)

    def _of_flask_rq(self, queue: str) -> tuple[Redis | None, Any]:
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


def _with_limits(client: Redis, seconds: float) -> Redis:
    """Return a client like this one, with a time-out of `seconds` and without redis-py's default retries."""
    pool = client.connection_pool
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
        connection_class=pool.connection_class, max_connections=pool.max_connections, **kwargs
    )
    return Redis(connection_pool=own_pool)
