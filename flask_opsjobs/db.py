"""Our tables' metadata, and our own connections: apart from the host's session and from its pool."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import psycopg
from sqlalchemy import Engine, MetaData
from sqlalchemy.orm import DeclarativeBase
from sqlalchemy.pool import Pool

SCHEMA = "opsjobs"
SCHEMA_VERSION = 4
# The oldest schema that this code runs on. Before the first release, only its own.
OLDEST_SCHEMA = SCHEMA_VERSION

_NAMES = {
    "ix": "%(table_name)s_%(column_0_N_name)s",
    "uq": "%(table_name)s_%(column_0_N_name)s_key",
    "ck": "%(table_name)s_%(constraint_name)s",
    "fk": "%(table_name)s_%(column_0_N_name)s_fkey",
    "pk": "%(table_name)s_pkey",
}


class Base(DeclarativeBase):
    """The parent of our models. Its metadata is ours alone: a host's autogenerate never sees these tables."""

    metadata = MetaData(schema=SCHEMA, naming_convention=_NAMES)


def one_of(column: str, words: Sequence[str]) -> str:
    """The text of a CHECK that `column` holds one of `words`."""
    return f"{column} IN ({', '.join(repr(word) for word in words)})"


Row = dict[str, Any]
Connection = psycopg.Connection[Any]


def connect_apart(engine: Engine) -> Connection:
    """A new psycopg connection in autocommit, made as the host's engine makes its own but outside its pool.

    A pool that is full can neither block nor starve us, and whatever the host does at connect (roles, tokens,
    `connect_args`) is done here too. The caller closes it. Raises what the driver raises.
    """
    return _detached(engine.pool.recreate())


def _detached(pool: Pool) -> Connection:
    fairy = pool.connect()
    connection: Connection = fairy.driver_connection  # type: ignore[assignment]
    fairy.detach()  # from here on no pool of SQLAlchemy knows it
    connection.autocommit = True
    return connection


class SpareConnections:
    """A few connections kept between uses, for the hook after a commit. Safe in threads and after a fork."""

    def __init__(self, engine: Engine, most: int = 4) -> None:
        self._engine = engine
        self._most = most
        self._lock = threading.Lock()
        self._idle: list[Connection] = []
        self._pid = os.getpid()

    @contextmanager
    def one(self) -> Iterator[Connection]:
        """A connection in autocommit; put back when the block ends well, closed when it raises."""
        connection = self._take() or connect_apart(self._engine)
        try:
            yield connection
        except BaseException:
            connection.close()
            raise
        self._put_back(connection)

    def _take(self) -> Connection | None:
        with self._lock:
            if self._pid != os.getpid():
                # After a fork the sockets are the parent's: forget them, never close them.
                self._idle, self._pid = [], os.getpid()
            while self._idle:
                connection = self._idle.pop()
                if not connection.closed:
                    return connection
        return None

    def _put_back(self, connection: Connection) -> None:
        with self._lock:
            if len(self._idle) < self._most and not connection.closed:
                self._idle.append(connection)
                return
        connection.close()

    def close(self) -> None:
        """Close what is idle; a connection in use closes itself when it comes back."""
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()
