"""Sends the statements of several functions to Postgres together, so that a page waits for few round trips.

Each function that is started runs in a greenlet: an ordinary function, which waits where it executes a
statement. While it waits, others run until they wait too. All their statements go in one pipeline, each when
it is made: Postgres executes the first ones while the others are made.

Only the connections of pages do this. On any other connection, each statement is sent when it is executed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from contextvars import copy_context
from functools import partial
from typing import Any, Concatenate, Generic, ParamSpec, Protocol, TypeVar

import psycopg
from greenlet import getcurrent, greenlet
from psycopg.generators import execute as flush_and_fetch
from psycopg.pq import TransactionStatus
from sqlalchemy import Connection
from sqlalchemy.orm import Session

T = TypeVar("T")
P = ParamSpec("P")

_BEGIN = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
# How long a page that has ended waits until it can cancel what it has sent.
_CANCEL_SECONDS = 1.0
_SAVEPOINT, _BACK = "SAVEPOINT guests", "ROLLBACK TO SAVEPOINT guests"


Statement = tuple[psycopg.Cursor[Any], Callable[[], object]]


class StatementQueue:
    """The statements of one snapshot that are not answered yet, and the functions that wait for answers.

    A statement that fails ends all others too, since Postgres has given the transaction up. Those of guests
    stand in a savepoint behind the others, so that guests fail alone: they are sent last.
    """

    def __init__(self, connection: BatchingConnection) -> None:
        self._connection = connection
        # What comes before the next statement; the cursors of what was sent and is not answered.
        self._before: str | None = _BEGIN
        self._sent: list[psycopg.Cursor[Any]] = []
        self._pipeline = ExitStack()
        self._failed: Exception | None = None
        self._functions: set[greenlet] = set()
        self._waiting: list[greenlet] = []
        self._error: Exception | None = None
        self._of_guests: list[Statement] = []
        self._guests: set[greenlet] = set()
        self._guest_seconds = 0.0
        self._guest_error: Exception | None = None

    def answer(self, cursor: psycopg.Cursor[Any], send: Callable[[], object]) -> None:
        """Send a statement, which `send` executes on `cursor`, and return when it is answered.

        Those of guests are queued.
        """
        is_guest = getcurrent() in self._guests
        if self._error is None and not (is_guest and self._guest_error):
            cursor.pgresult = None
            if is_guest:
                self._of_guests.append((cursor, send))
            else:
                self._send(cursor, send)
            self.wait()
            if cursor.pgresult is not None:
                return
        error = self._error or self._guest_error
        assert error is not None
        raise error

    def start(self, function: Callable[[], object], guest_seconds: float = 0) -> greenlet:
        """Run a function until it waits or ends. With `guest_seconds`, it and what it starts are guests."""
        made = greenlet(function)
        # It has the request and the app of whoever starts it.
        made.gr_context = copy_context()
        self._functions.add(made)
        if guest_seconds or getcurrent() in self._guests:
            self._guests.add(made)
            self._guest_seconds = guest_seconds or self._guest_seconds
        self._run(made)
        return made

    def wait(self) -> None:
        """Return when all that was sent or queued is answered, or has failed."""
        here = getcurrent()
        if here in self._functions:
            self._waiting.append(here)
            here.parent.switch()
        else:
            self._receive()
            self._go_on()

    def close(self) -> None:
        """Let functions that still wait end with an error. What Postgres executes for them is canceled."""
        self._error = self._error or psycopg.errors.PipelineAborted("the page has ended")
        unread = self._sent
        try:
            if unread:
                self._connection.cancel_safe(timeout=_CANCEL_SECONDS)
        except psycopg.Error:
            pass  # Postgres does not answer: that is found out below too
        finally:
            self._end_pipeline()
            for cursor in unread:
                cursor.pgresult = None
            while self._waiting:
                self._go_on()

    def _run(self, function: greenlet) -> None:
        function.parent = getcurrent()
        function.switch()

    def _go_on(self) -> None:
        # In the order of their starts, so that a function goes on after those whose values it needs.
        waiting, self._waiting = self._waiting, []
        for function in waiting:
            self._run(function)

    def _send(self, cursor: psycopg.Cursor[Any], send: Callable[[], object]) -> None:
        """Send a statement. Postgres executes it while the functions make the next ones."""
        before, self._before = self._before, None
        if before is not None:
            self._send(*self._make(before))
        self._sent.append(cursor)
        try:
            # libpq has pipelines since version 14.
            if len(self._sent) == 1 and psycopg.Pipeline.is_supported():
                self._pipeline.enter_context(self._connection.pipeline())
            if self._failed is None:
                send()
        except Exception as failed:  # this statement, or an earlier one
            self._failed = failed

    def _receive(self) -> None:
        """Wait for the answers."""
        sent = list(self._sent)
        guests, self._of_guests = self._of_guests, []
        if guests:
            limit = f"SET LOCAL statement_timeout = {int(self._guest_seconds * 1000)}"
            # The end of the savepoint takes the limit back.
            for each in (self._make(_SAVEPOINT), self._make(limit), *guests, self._make(_BACK)):
                self._send(*each)
        error = self._end_pipeline()
        if error is None:
            return
        if any(cursor.pgresult is None for cursor in sent):
            self._error = error
        else:
            self._guest_error = error
            self._before = _BACK

    def _end_pipeline(self) -> Exception | None:
        """Read the answers. Returns the first error; the statements before it have their results."""
        error, self._failed = self._failed, None
        self._sent = []
        try:
            self._pipeline.close()
        except psycopg.Error as failed:
            error = error or failed
        return error

    def _make(self, text: str) -> Statement:
        cursor = psycopg.Cursor(self._connection)
        return cursor, partial(cursor.execute, text, prepare=False)


class StartedRead(Generic[T]):
    """A function that was started, and goes on each time its statement is answered."""

    def __init__(
        self, statements: StatementQueue | None, read: Callable[[], T], guest_seconds: float = 0
    ) -> None:
        self._statements = statements
        self._read = read
        self._error: Exception | None = None
        if statements is None:
            self._value = read()
        else:
            self._function = statements.start(self._run, guest_seconds)

    def _run(self) -> None:
        try:
            self._value = self._read()
        except Exception as error:
            self._error = error

    @property
    def value(self) -> T:
        """What the function returned. Waits for it, and raises what it raised."""
        while self._statements is not None and not self._function.dead:
            self._statements.wait()
        if self._error is not None:
            raise self._error
        return self._value


def value_of(each: T | StartedRead[T]) -> T:
    """The value, or that of the function that was started to read it."""
    return each.value if isinstance(each, StartedRead) else each


def values_of(named: Mapping[str, Any]) -> dict[str, Any]:
    """The same, with the value of each function that was started."""
    return {name: value_of(each) for name, each in named.items()}


class BatchingCursor(psycopg.Cursor[Any]):
    """A cursor whose statements wait in the queue of its connection, if there is one."""

    __slots__ = ()

    def execute(self, query: Any, params: Any = None, **options: Any) -> Any:
        """Do what psycopg does, together with the other statements that wait."""
        send = partial(super().execute, query, params)
        statements = self._conn.statements  # type: ignore[attr-defined]
        if statements is None:
            return send(**options)
        # Postgres plans each statement of a page anew, prepared or not.
        statements.answer(self, partial(send, **{**options, "prepare": False}))
        return self


class BatchingConnection(psycopg.Connection[Any]):
    """A connection that can read a snapshot with few round trips.

    Its pool gets it back before the ROLLBACK at the end is answered. Its next user reads the answer.
    """

    statements: StatementQueue | None = None
    _is_leaving = False

    def wait(self, gen: Any, *args: Any, **options: Any) -> Any:
        """Do what psycopg does, after the end of the snapshot before."""
        if self._is_leaving:
            self._is_leaving = False
            super().wait(flush_and_fetch(self.pgconn), *args, **options)
        return super().wait(gen, *args, **options)

    def rollback(self) -> None:
        """Do what psycopg does; at the end of a snapshot without waiting for the answer."""
        statements, self.statements = self.statements, None
        is_open = self.pgconn.transaction_status in (
            TransactionStatus.INTRANS,
            TransactionStatus.INERROR,
        )
        if statements is not None and is_open:
            self.pgconn.send_query(b"ROLLBACK")
            self.pgconn.flush()
            self._is_leaving = True
        if not self._is_leaving:
            super().rollback()

    def _start_query(self) -> Any:
        # The queue begins its transaction itself: in a pipeline, psycopg would wait for the answer to BEGIN.
        if self.statements is None:
            yield from super()._start_query()


@contextmanager
def snapshot_of(connection: Connection) -> Iterator[None]:
    """A block whose transaction on this connection only reads, on one snapshot.

    A connection of pages begins it in the round trip of the first statements.
    """
    driver = connection.connection.driver_connection
    if not isinstance(driver, BatchingConnection):
        connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
        yield
        return
    driver.statements = statements = StatementQueue(driver)
    try:
        yield
    finally:
        statements.close()


class _HasSession(Protocol):
    @property
    def session(self) -> Session: ...


S = TypeVar("S", bound=Session | _HasSession | psycopg.Connection[Any])


def start_reading(
    where: S, read: Callable[Concatenate[S, P], T], *args: P.args, **kwargs: P.kwargs
) -> StartedRead[T]:
    """Start `read(where, …)`, so that its statements are sent together with those of others.

    `where` is a session, a `Reading` or a connection. On one that is not of pages, it runs at once.
    """
    return StartedRead(_queue_of(where), partial(read, where, *args, **kwargs))


def start_guest(
    where: S,
    seconds: float,
    read: Callable[Concatenate[S, P], T],
    *args: P.args,
    **kwargs: P.kwargs,
) -> StartedRead[T]:
    """Start a function that fails alone, and each of whose statements may take at most `seconds`."""
    return StartedRead(_queue_of(where), partial(read, where, *args, **kwargs), seconds)


def start_beside(read: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Future[T]:
    """Start a function in a thread: it asks on another connection, and a page waits for both at once."""
    thread = ThreadPoolExecutor(1, "opsjobs-beside")
    try:
        return thread.submit(read, *args, **kwargs)
    finally:
        thread.shutdown(wait=False)


def _queue_of(where: Session | _HasSession | psycopg.Connection[Any]) -> StatementQueue | None:
    driver: object = where
    if not isinstance(where, psycopg.Connection):
        session = where if isinstance(where, Session) else where.session
        driver = session.connection().connection.driver_connection
    return driver.statements if isinstance(driver, BatchingConnection) else None
