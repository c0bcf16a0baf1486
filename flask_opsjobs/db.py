"""Our tables' metadata, and our own connections: apart from the host's session and from its pool."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

import psycopg
from sqlalchemy import Connection as SqlConnection
from sqlalchemy import Engine, MetaData, event
from sqlalchemy.engine.base import OptionEngine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import DeclarativeBase
from sqlalchemy.pool import Pool, QueuePool

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

# Classes of SQLSTATE whose errors every statement of this connection, or of everybody, would meet: connection (08),
# cached plan of before a migration (0A), transaction state, such as read-only (25), prepared statement that a pooler
# lost (26), authorization (28), missing database or schema (3D, 3F), missing table, column or privilege (42),
# resources (53), operator intervention (57), system (58), internal (XX).
_AWAY = frozenset({"08", "0A", "25", "26", "28", "3D", "3F", "42", "53", "57", "58", "XX"})
_PREPARED = frozenset({"26000", "42P05"})
_PREPARED_FIX = (
    "the connection pooler (such as PgBouncer in transaction mode) loses prepared statements: set "
    'SQLALCHEMY_ENGINE_OPTIONS = {"connect_args": {"prepare_threshold": None}}, '
    "or set max_prepared_statements above 0 in PgBouncer"
)


def is_away(error: BaseException) -> bool:
    """Whether the error means "Postgres is away": it is about the connection or the database, not about one row.

    Whoever meets one drops the connection, keeps what it has, and tries again later on a new connection. An error
    about one row or one statement (a constraint, a value, a deadlock, a lock or statement timeout) is not one.
    """
    cause = _driver_error(error)
    if cause is None:
        return False
    if isinstance(error, DBAPIError) and error.connection_invalidated:
        return True
    if cause.sqlstate is None:
        # The driver itself says that there is no connection. Its other errors are about what it was given.
        return isinstance(
            cause, psycopg.OperationalError | psycopg.InterfaceError | psycopg.InternalError
        )
    return cause.sqlstate[:2] in _AWAY and not isinstance(cause, psycopg.errors.QueryCanceled)


def say_cause(error: BaseException) -> str:
    """Why Postgres is away, on one line, for a log or a page; names the setting when a pooler is the cause."""
    cause = _driver_error(error)
    if cause is None:
        return type(error).__name__
    if _is_about_prepared_statement(cause):
        return _PREPARED_FIX
    message = cause.diag.message_primary or str(cause)
    return f"{type(cause).__name__}: {message.strip().partition(chr(10))[0]}"


def _driver_error(error: BaseException) -> psycopg.Error | None:
    cause = error.orig if isinstance(error, DBAPIError) else error
    return cause if isinstance(cause, psycopg.Error) else None


def _is_about_prepared_statement(cause: psycopg.Error) -> bool:
    # A protocol violation: parameters for another client's statement. psycopg names its own _pg3_<number>.
    is_another_ones = cause.sqlstate == "08P01" and "_pg3_" in str(cause)
    return cause.sqlstate in _PREPARED or is_another_ones


def connect_apart(engine: Engine) -> Connection:
    """A new psycopg connection in autocommit, made as the host's engine makes its own but outside its pool.

    A pool that is full can neither block nor starve us, and whatever the host does at connect (roles, tokens,
    `connect_args`) is done here too. The caller closes it. Raises `psycopg.Error`, whatever the host's code raises.
    """
    try:
        return _detached(engine.pool.recreate())
    except psycopg.Error:
        raise
    except Exception as error:
        words = f"{type(error).__name__} while connecting"
        raise (_driver_error(error) or psycopg.OperationalError(words)) from error


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
        """A connection in autocommit; put back when the block ends well, closed when it raises.

        When Postgres is away the idle ones are closed too: a session that was opened read-only stays read-only.
        """
        connection = self._take() or connect_apart(self._engine)
        try:
            yield connection
        except BaseException as error:
            connection.close()
            if is_away(error):
                self.close()
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


# --- the connections of pages: few, apart from the host's, and none of them waits for ever

# How long a page waits for a connection, and for each answer unless it says more. libpq takes no less.
_SOON_SECONDS = 2
_page = threading.local()


class PatientConnection(psycopg.Connection[Any]):
    """A connection that is given up when Postgres says nothing for `patience` seconds, as when it is frozen.

    A statement timeout is kept by the server; this one is kept here.
    """

    patience: float = _SOON_SECONDS

    def wait(self, gen: Any, *args: Any, **options: Any) -> Any:
        """As psycopg's own, which comes back to the generator ten times a second while nothing arrives."""
        return super().wait(self._give_up(gen), *args, **options)

    def _give_up(self, gen: Any) -> Generator[Any, Any, Any]:
        until = time.monotonic() + self.patience
        try:
            wanted = next(gen)
            while True:
                ready = yield wanted
                if not ready and time.monotonic() >= until:
                    self.pgconn.finish()
                    raise psycopg.OperationalError(f"no answer within {self.patience:g} s")
                wanted = gen.send(ready)
        except StopIteration as end:
            return end.value


class PageEngine:
    """Makes the engine that pages use: as the host's, on `most` patient connections that nobody else uses.

    It is made when it is first asked for, after the host's own listeners. Safe in threads and after a fork.
    """

    def __init__(self, engine: Engine, most: int) -> None:
        self._engine = engine
        self._most = most
        self._lock = threading.Lock()
        self._made: Engine | None = None
        self._pid = os.getpid()

    def get(self) -> Engine:
        """The engine, whose pool is this process's own."""
        with self._lock:
            if self._made is None:
                self._made = _make_patient_engine(self._engine, self._most)
            elif self._pid != os.getpid():
                # After a fork the sockets are the parent's: forget them, never close them.
                self._made.dispose(close=False)
            self._pid = os.getpid()
            return self._made


class _EngineOfPages(OptionEngine):
    """The dialect, the options and the events of another engine, on a pool of its own."""

    # In place of the property that leads to the other engine's.
    pool: Pool = None  # type: ignore[assignment]

    def __init__(self, engine: Engine, pool: Pool) -> None:
        super().__init__(engine, {})
        self.pool = pool


def _make_patient_engine(engine: Engine, most: int) -> Engine:
    # As `QueuePool.recreate` does it, but from a pool of any class: its creator, its events and its habits.
    other = engine.pool
    pool = QueuePool(
        other._creator,
        pool_size=most,
        max_overflow=0,
        timeout=_SOON_SECONDS,
        recycle=other._recycle,
        pre_ping=other._pre_ping,
        reset_on_return=other._reset_on_return,
        echo=other.echo,
        dialect=other._dialect,
        _dispatch=other.dispatch,
    )
    event.listen(pool, "connect", _make_patient, insert=True)
    event.listen(engine, "do_connect", _connect_soon)
    return _EngineOfPages(engine, pool)


def connect_soon(engine: Engine) -> SqlConnection:
    """A connection of a patient engine. Raises what SQLAlchemy raises, when Postgres does not answer within seconds."""
    _page.is_waiting = True
    try:
        return engine.connect()
    finally:
        _page.is_waiting = False


@contextmanager
def patience(connection: SqlConnection, seconds: float) -> Iterator[None]:
    """A block in which this connection of a patient engine waits so long for each answer."""
    driver: Any = connection.connection.driver_connection
    driver.patience = seconds
    try:
        yield
    finally:
        driver.patience = _SOON_SECONDS


def _make_patient(connection: Any, _record: object) -> None:
    kind: Any = type(connection)
    connection.__class__ = _patient(kind)


@cache
def _patient(kind: Any) -> Any:
    """The host's class of connections, with patience."""
    return type(kind.__name__, (PatientConnection, kind), {})


def _connect_soon(dialect: Any, _record: object, args: Any, options: Any) -> Any:
    """Connects for a page; None leaves the host's own connections alone."""
    if not getattr(_page, "is_waiting", False):
        return None
    return dialect.connect(*args, **{**options, "connect_timeout": _SOON_SECONDS})
