"""Holds the metadata of our tables, and opens connections outside the host's session and pool."""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from typing import Any

import psycopg
from psycopg.abc import AdaptContext
from psycopg.pq import PipelineStatus, TransactionStatus
from psycopg.types.datetime import TimestamptzLoader
from sqlalchemy import Connection as SqlConnection
from sqlalchemy import Engine, MetaData, event
from sqlalchemy.engine.base import OptionEngine
from sqlalchemy.exc import DBAPIError, StatementError
from sqlalchemy.orm import DeclarativeBase
from sqlalchemy.pool import Pool, QueuePool

from .round_trips import BatchingConnection, BatchingCursor

SCHEMA = "opsjobs"
SCHEMA_VERSION = 27
# A deploy may migrate before or after it replaces the code. So this code runs on the schema before its own,
# and on the next one, which only adds to it.
OLDEST_SCHEMA = SCHEMA_VERSION - 1
NEWEST_SCHEMA = SCHEMA_VERSION + 1
# The largest id: what a bigint holds.
LARGEST_ID = 2**63 - 1

_NAMES = {
    "ix": "%(table_name)s_%(column_0_N_name)s",
    "uq": "%(table_name)s_%(column_0_N_name)s_key",
    "ck": "%(table_name)s_%(constraint_name)s",
    "fk": "%(table_name)s_%(column_0_N_name)s_fkey",
    "pk": "%(table_name)s_pkey",
}


class Base(DeclarativeBase):
    """The base class of our models. It has its own metadata: a host's autogenerate never sees our tables."""

    metadata = MetaData(schema=SCHEMA, naming_convention=_NAMES)


def is_id(value: object) -> bool:
    """Whether a value can be the id of a row: a whole number from 1 to what a bigint holds."""
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= LARGEST_ID


def say_too_large(kind: str, text: str) -> str | None:
    """Why there can be no row of a kind, such as `job`, with this number; None for any other text.

    >>> say_too_large("job", "9223372036854775808")
    'there is no job 9223372036854775808: an id is at most 9223372036854775807'
    """
    if not re.fullmatch(r"[0-9]{1,100}", text) or int(text) <= LARGEST_ID:
        return None
    return f"there is no {kind} {int(text)}: an id is at most {LARGEST_ID}"


def one_of(column: str, words: Sequence[str]) -> str:
    """The text of a CHECK that `column` holds one of `words`."""
    return f"{column} IN ({', '.join(repr(word) for word in words)})"


Row = dict[str, Any]
Connection = psycopg.Connection[Any]

# Classes of SQLSTATE whose errors stop every statement of this connection, or of all connections:
# connection (08), cached plan from before a migration (0A), transaction state, such as read-only (25),
# prepared statement lost by a pooler (26), authorization (28), missing database or schema (3D, 3F), missing
# table, column or privilege (42), resources (53), operator intervention (57), system (58), internal (XX).
_AWAY = frozenset({"08", "0A", "25", "26", "28", "3D", "3F", "42", "53", "57", "58", "XX"})
# Classes whose messages quote only names (of tables, columns, constraints, functions, roles, statements), no
# values.
_ABOUT_NAMES = frozenset({"08", "23", "25", "26", "28", "3D", "3F", "40", "42", "53", "55", "57"})
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.$]*")
_SYNTAX_ERROR = "42601"
# The source functions of messages that a RAISE or ASSERT of PL/pgSQL made: any text, under any SQLSTATE.
_RAISED = frozenset({"exec_stmt_raise", "exec_stmt_assert"})
_COLON_OR_QUOTE = re.compile(r"[:\"']")
_ABOUT_DATA = (psycopg.DataError, psycopg.IntegrityError)
_PREPARED = frozenset({"26000", "42P05"})
_PREPARED_FIX = (
    "the connection pooler (such as PgBouncer in transaction mode) loses prepared statements: set "
    'SQLALCHEMY_ENGINE_OPTIONS = {"connect_args": {"prepare_threshold": None}}, '
    "or set max_prepared_statements above 0 in PgBouncer"
)


def is_away(error: BaseException) -> bool:
    """Whether the error means "Postgres is away": it is about the connection or database, not about a row.

    The caller then drops the connection, keeps its data, and tries again later on a new connection. False for
    an error about one row or one statement: a constraint, a value, a deadlock, a lock timeout or a statement
    timeout.
    """
    cause = _driver_error(error)
    if cause is None:
        return False
    if isinstance(error, DBAPIError) and error.connection_invalidated:
        return True
    if cause.sqlstate is None:
        # These errors of the driver mean that there is no connection. Its other errors are about its
        # arguments.
        return isinstance(
            cause, psycopg.OperationalError | psycopg.InterfaceError | psycopg.InternalError
        )
    return cause.sqlstate[:2] in _AWAY and not isinstance(cause, psycopg.errors.QueryCanceled)


def lacks_tables(error: BaseException) -> bool:
    """Whether Postgres answers, but has not our tables, as after a drop of the schema."""
    missing = psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName
    return isinstance(_driver_error(error), missing)


def say_cause(error: BaseException) -> str:
    """Why Postgres is away, on one line, for a log or a page.

    Names the setting to change when a pooler causes it.
    """
    cause = _driver_error(error)
    if cause is None:
        return type(error).__name__
    if _is_about_prepared_statement(cause):
        return _PREPARED_FIX
    return f"{type(cause).__name__}: {say_without_values(cause).partition(chr(10))[0]}"


def say_without_values(error: psycopg.Error) -> str:
    """The message of a database error, without values of rows and parameters.

    DETAIL and CONTEXT are left out, since they quote rows. Quoted parts of the message are hidden unless they
    are names. SQLSTATE, table, column, constraint and type are kept.
    """
    diag, code = error.diag, error.sqlstate or ""
    if diag.message_primary is None:
        # The driver made this error. Only its errors about data quote values, after the first colon or quote.
        text = str(error).strip()
        return (
            _COLON_OR_QUOTE.split(text, maxsplit=1)[0].strip(" :")
            if type(error) in _ABOUT_DATA
            else text
        )
    names = {
        "table": diag.table_name,
        "column": diag.column_name,
        "constraint": diag.constraint_name,
        "type": diag.datatype_name,
    }
    if code == "P0001" or diag.source_function in _RAISED:
        message = "raised by a function or trigger; its message may quote values and is not kept"
    else:
        message = _hide_quoted(diag.message_primary, code, {*names.values(), diag.schema_name})
    extra = [
        f"{word} {name}" for word, name in names.items() if name and f'"{name}"' not in message
    ]
    return f"{message} ({', '.join([f'SQLSTATE {code}', *extra])})"


def forget_values(error: BaseException) -> None:
    """Rewrite a database error and its causes in place, so that no log and no page shows a value."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, StatementError):
            error.hide_parameters = True
            error.params = None
            if isinstance(error.orig, psycopg.Error):
                forget_values(error.orig)
                kind = type(error.orig)
                error.args = (f"({kind.__module__}.{kind.__name__}) {error.orig}",)
        elif isinstance(error, psycopg.Error):
            error.args = (say_without_values(error),)
        error = error.__cause__ or error.__context__  # type: ignore[assignment]


def _hide_quoted(text: str, code: str, names: set[str | None]) -> str:
    """The text with quoted parts hidden, unless all are in `names` or are names by the class of `code`."""
    quoted = re.findall(r"[\"']([^\"']*)[\"']?", text)
    is_name = _NAME.fullmatch if code[:2] in _ABOUT_NAMES and code != _SYNTAX_ERROR else None
    if all(each in names or (is_name is not None and is_name(each)) for each in quoted):
        return text
    # Hide from the first quote to the last: a value may contain quotes itself.
    hidden = re.sub(r"[\"'].*[\"']|[\"'].*", '"[hidden]"', text, count=1, flags=re.DOTALL)
    return re.sub(r"(0x[0-9a-f]{2}\s*)+", "[hidden]", hidden)


def _driver_error(error: BaseException) -> psycopg.Error | None:
    cause = error.orig if isinstance(error, DBAPIError) else error
    return cause if isinstance(cause, psycopg.Error) else None


def _is_about_prepared_statement(cause: psycopg.Error) -> bool:
    # A protocol violation: the parameters met another client's statement. psycopg calls its statements
    # _pg3_<number>.
    is_another_ones = cause.sqlstate == "08P01" and "_pg3_" in str(cause)
    return cause.sqlstate in _PREPARED or is_another_ones


def connect_apart(engine: Engine, patience: float | None = None) -> Connection:
    """Open a new psycopg connection in autocommit, as the host's engine does but outside its pool.

    A full pool therefore cannot block us, and everything that the host does at connect (roles, tokens,
    `connect_args`) is done here too. The caller closes the connection. An exception of the host's code is
    raised as `psycopg.Error` too. With `patience` the connection fails when Postgres sends nothing for so
    many seconds. Postgres ends it when a transaction on it stands still: see `OwnConnection`. Times come in
    UTC, whatever zone the database has.
    """
    try:
        connection = _detached(engine.pool.recreate())
    except psycopg.Error:
        raise
    except Exception as error:
        words = f"{type(error).__name__} while connecting"
        raise (_driver_error(error) or psycopg.OperationalError(words)) from error
    _let_be(OwnConnection, connection)
    _load_in_utc(connection)
    if patience is not None:
        _let_be(PatientConnection, connection)
        set_patience(connection, patience)
    return connection


class _UtcLoader(TimestamptzLoader):
    """Makes the loader that psycopg makes without a connection: one that loads times in UTC."""

    def __new__(cls, oid: int, _context: AdaptContext | None = None) -> Any:
        return psycopg.adapters.get_loader(oid, cls.format)(oid)  # type: ignore[misc]


def _load_in_utc(connection: Connection) -> None:
    """Let times come in UTC, not in the zone of the session.

    Python subtracts and compares two times of one zone by what clocks show: where these are set back, an hour
    is lost. To set the zone of the session does not do: it would stay for the next client of a pooler, and in
    a pipeline psycopg learns of it late.
    """
    connection.adapters.register_loader("timestamptz", _UtcLoader)


def set_patience(connection: Connection, seconds: float) -> None:
    """Change how long a patient connection waits for an answer, also for one that it waits for now."""
    connection.patience = seconds  # type: ignore[attr-defined]


def _detached(pool: Pool) -> Connection:
    fairy = pool.connect()
    connection: Connection = fairy.driver_connection  # type: ignore[assignment]
    fairy.detach()  # from now on it belongs to no pool of SQLAlchemy
    connection.autocommit = True
    return connection


# A process that is frozen in the middle of a transaction, or whose machine is, would keep its locks for ever.
_END_IF_FROZEN = "SET LOCAL idle_in_transaction_session_timeout = '10s'"


class OwnConnection(psycopg.Connection[Any]):
    """A connection of ours. Postgres ends its session when a transaction on it waits 10 s for a statement.

    The setting belongs to the transaction, not to the session, so it works through PgBouncer, and a host that
    gets the session next does not have it.
    """

    @contextmanager
    def transaction(
        self, savepoint_name: str | None = None, force_rollback: bool = False
    ) -> Iterator[psycopg.Transaction]:
        """Do what psycopg does, and limit how long the transaction may stand still.

        The limit is set in the round trip of BEGIN. In a pipeline, Postgres counts from a sync on, and not
        after the end of the pipeline.
        """
        is_outer = self.info.transaction_status == TransactionStatus.IDLE
        in_pipeline = self.pgconn.pipeline_status != PipelineStatus.OFF
        if in_pipeline or not is_outer:
            with super().transaction(savepoint_name, force_rollback) as made:
                if is_outer:
                    self.execute(_END_IF_FROZEN)
                yield made
            return
        # Never entered: it only tells `Rollback` which transaction is meant.
        this = psycopg.Transaction(self)
        # Several statements in one cannot be prepared.
        self.execute(f"BEGIN; {_END_IF_FROZEN}", prepare=False)
        try:
            yield this
        except BaseException as error:
            if not self.closed:
                with suppress(psycopg.Error):
                    self.rollback()
            if isinstance(error, psycopg.Rollback) and error.transaction in (None, this):
                return
            raise
        if force_rollback:
            self.rollback()
        else:
            self.commit()


def descriptors_of(connection: Connection | None) -> list[int]:
    """The file descriptor of a connection; none when it is closed or None."""
    if connection is None or connection.closed:
        return []
    return [connection.fileno()]


class SpareConnections:
    """Keeps a few connections between uses, for the hook after a commit. Safe in threads and after a fork."""

    def __init__(self, engine: Engine, most: int = 4) -> None:
        self._engine = engine
        self._most = most
        self._lock = threading.Lock()
        self._idle: list[Connection] = []
        self._pid = os.getpid()

    @contextmanager
    def one(self) -> Iterator[Connection]:
        """Lend a connection in autocommit. After the block it is kept, or closed when the block raised.

        When Postgres is away, the idle connections are closed too: a session opened read-only would stay
        read-only.
        """
        connection = self._take() or connect_apart(self._engine)
        try:
            yield connection
        except BaseException as error:
            connection.close()
            if is_away(error):
                self.close()
            forget_values(error)
            raise
        self._keep(connection)

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

    def _keep(self, connection: Connection) -> None:
        with self._lock:
            if len(self._idle) < self._most and not connection.closed:
                self._idle.append(connection)
                return
        connection.close()

    def forget(self) -> None:
        """Forget all connections, in a forked child: another thread may have held the lock at the fork."""
        self._lock = threading.Lock()
        self._idle, self._pid = [], os.getpid()

    def close(self) -> None:
        """Close the idle connections. A connection in use is closed or kept when its block ends."""
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()


# --- the connections of pages: few, separate from the host's, each with a bound on waiting

# How long a page waits for a connection, and for each answer unless `patience` is set. libpq's minimum is 2.
_SOON_SECONDS = 2
_page = threading.local()


class PatientConnection(psycopg.Connection[Any]):
    """A connection that is closed when Postgres sends nothing for `patience` seconds, as when it is frozen.

    The server enforces a statement timeout. This timeout is enforced by the client.
    """

    patience: float = _SOON_SECONDS

    def wait(self, gen: Any, *args: Any, **options: Any) -> Any:
        """Wait as psycopg does: it resumes the generator ten times a second while nothing arrives."""
        return super().wait(self._give_up(gen), *args, **options)

    def _give_up(self, gen: Any) -> Generator[Any, Any, Any]:
        began = time.monotonic()
        try:
            wanted = next(gen)
            while True:
                ready = yield wanted
                if not ready and time.monotonic() - began >= self.patience:
                    self.pgconn.finish()
                    raise psycopg.OperationalError(f"no answer within {self.patience:g} s")
                wanted = gen.send(ready)
        except StopIteration as end:
            return end.value


class PageConnection(BatchingConnection, PatientConnection):
    """A connection of our pages."""


class PageEngine:
    """Makes the engine of our pages: a copy of the host's engine with a pool of `most` patient connections.

    It is made at first use, when the host's own listeners are registered. Safe in threads and after a fork.
    """

    def __init__(self, engine: Engine, most: int) -> None:
        self._engine = engine
        self._most = most
        self._lock = threading.Lock()
        self._made: Engine | None = None
        self._pid = os.getpid()

    def get(self) -> Engine:
        """The engine. Its pool belongs to this process alone."""
        with self._lock:
            if self._made is None:
                self._made = _make_patient_engine(self._engine, self._most)
            elif self._pid != os.getpid():
                # After a fork the sockets are the parent's: forget them, never close them.
                self._made.dispose(close=False)
            self._pid = os.getpid()
            return self._made


class _EngineOfPages(OptionEngine):
    """Has the dialect, the options and the events of another engine, and its own pool."""

    # Replaces the property that returns the other engine's pool.
    pool: Pool = None  # type: ignore[assignment]

    def __init__(self, engine: Engine, pool: Pool) -> None:
        super().__init__(engine, {})
        self.pool = pool


def _make_patient_engine(engine: Engine, most: int) -> Engine:
    # Does what `QueuePool.recreate` does, for a pool of any class: copies its creator, its events and its
    # options.
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
    event.listen(pool, "connect", lambda made, _: _let_be_of_pages(made), insert=True)
    event.listen(engine, "do_connect", _connect_soon)
    return _EngineOfPages(engine, pool)


def connect_soon(engine: Engine) -> SqlConnection:
    """Connect on a patient engine.

    Raises what SQLAlchemy raises when Postgres does not answer within seconds.
    """
    _page.is_waiting = True
    try:
        return engine.connect()
    finally:
        _page.is_waiting = False


@contextmanager
def patience(connection: SqlConnection, seconds: float) -> Iterator[None]:
    """Let this connection of a patient engine wait `seconds` for each answer, inside the block."""
    driver: Any = connection.connection.driver_connection
    driver.patience = seconds
    try:
        yield
    finally:
        driver.patience = _SOON_SECONDS


def _let_be(kind: Any, connection: Any) -> None:
    """Make a connection of the host's class one of ours too."""
    of_host: Any = type(connection)
    connection.__class__ = _both(kind, of_host)


def _let_be_of_pages(connection: Any) -> None:
    _let_be(PageConnection, connection)
    _load_in_utc(connection)
    connection.cursor_factory = _both(BatchingCursor, connection.cursor_factory)


@cache
def _both(kind: Any, of_host: Any) -> Any:
    return type(of_host.__name__, (kind, of_host), {})


def _connect_soon(dialect: Any, _record: object, args: Any, options: Any) -> Any:
    """Connect for a page with a short timeout.

    None lets SQLAlchemy connect as usual, for the host's connections.
    """
    if not getattr(_page, "is_waiting", False):
        return None
    return dialect.connect(*args, **{**options, "connect_timeout": _SOON_SECONDS})
