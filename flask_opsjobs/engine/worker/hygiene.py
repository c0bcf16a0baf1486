"""Cleans the host's connections to PostgreSQL between two jobs of a process, and finds those left behind."""

from __future__ import annotations

import gc
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary, WeakSet

import psycopg
from psycopg.pq import ExecStatus, TransactionStatus
from sqlalchemy import Engine, event
from sqlalchemy.pool import ConnectionPoolEntry, Pool

# What a job may leave in its session at the server, beside settings. One round trip.
_CLEAN = b"SELECT pg_advisory_unlock_all(); UNLISTEN *; DISCARD TEMP"

# A statement whose effect stays in the session after its transaction. A SET of one transaction is none.
_GAP = r"(?:\s|--[^\n]*\n|/\*.*?\*/)*"
_STAYS = _GAP + r"(?:SET|RESET|PREPARE|LISTEN|LOAD)\b(?!\s+(?:LOCAL|TRANSACTION|CONSTRAINTS)\b)"
_FIRST = re.compile(_STAYS, re.IGNORECASE | re.DOTALL)
_LATER = re.compile(";" + _STAYS, re.IGNORECASE | re.DOTALL)
_SET_CONFIG = re.compile(r"set_config\s*\([^()]*,\s*(true|false)\s*\)", re.IGNORECASE)


class ConnectionHygiene:
    """Watches the pools of this process: which connections the running job uses, and what it does on them.

    It sees connections of psycopg 3 that a pool of SQLAlchemy gave out. A host's own `psycopg.connect` is
    unseen, and so is a setting that is changed inside a function of the database.

    It is made and begins to watch before the children of a worker are forked, since to begin would cost each
    of them a millisecond.
    """

    def __init__(self) -> None:
        self._watched: list[tuple[type, str, Callable[..., None]]] = [
            (Pool, "checkout", self._note_checkout),
            (Pool, "checkin", self._note_checkin),
            (Pool, "detach", self._note_detach),
            (Engine, "before_cursor_execute", self._note_statement),
        ]
        self.forget()

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Watch all pools of this process and of those that it forks."""
        for each in self._watched:
            event.listen(*each)
        try:
            yield
        finally:
            for each in self._watched:
                event.remove(*each)

    def forget(self) -> None:
        """Forget what was seen: a forked child has no connection yet."""
        # Connections that are not in their pool now.
        self._out: WeakSet[psycopg.Connection[Any]] = WeakSet()
        self._may_stay: WeakSet[psycopg.Connection[Any]] = WeakSet()
        # Connections that came back since the last job ended, and their entries in the pool.
        self._returned: WeakKeyDictionary[Any, ConnectionPoolEntry] = WeakKeyDictionary()
        # Connections whose settings a job has changed.
        self._changed: WeakSet[psycopg.Connection[Any]] = WeakSet()

    def clean(self) -> bool:
        """Clean what came back. Return whether all did: somebody may keep one."""
        if not self._returned and not self._out:
            return True  # the job used none
        for connection, entry in list(self._returned.items()):
            is_idle = connection not in self._out and entry.dbapi_connection is connection
            if is_idle and (connection in self._changed or not _clean_session(connection)):
                entry.invalidate()
        self._returned.clear()
        if self._are_all_back():
            return True
        gc.collect()  # a circle of objects may hold a session that nobody has any more
        return self._are_all_back()

    def let_stay(self) -> None:
        """Note that the connections that are in use now may stay so."""
        self._may_stay = WeakSet(self._out)

    def _are_all_back(self) -> bool:
        return all(each.closed or each in self._may_stay for each in self._out)

    def _note_checkout(self, connection: object, *_: object) -> None:
        if isinstance(connection, psycopg.Connection):
            self._out.add(connection)

    def _note_checkin(self, connection: object, entry: ConnectionPoolEntry) -> None:
        # None: the connection was invalidated.
        if isinstance(connection, psycopg.Connection):
            self._out.discard(connection)
            self._returned[connection] = entry

    def _note_detach(self, connection: object, _: object) -> None:
        # It has left its pool for good, as do our own connections: no later job gets it from there.
        if isinstance(connection, psycopg.Connection):
            self._out.discard(connection)

    def _note_statement(
        self, _: object, cursor: Any, statement: str, parameters: Any, *__: object
    ) -> None:
        if changes_session(statement, parameters) and isinstance(cursor, psycopg.Cursor):
            self._changed.add(cursor.connection)


def changes_session(statement: str, parameters: dict[str, Any] | Sequence[Any] = ()) -> bool:
    """Return whether the effect of a statement stays in its session after its transaction has ended.

    >>> changes_session("SET ROLE anna"), changes_session("SET LOCAL ROLE anna")
    (True, False)
    """
    if _FIRST.match(statement) or (";" in statement and _LATER.search(statement)):
        return True
    if "set_config" not in statement:
        return False
    if found := _SET_CONFIG.search(statement):
        return found[1].lower() == "false"
    # `func.set_config(…, True)` passes as a parameter that the change ends with the transaction.
    values = parameters.values() if isinstance(parameters, dict) else parameters
    return not any(value is True for value in values)


def _clean_session(connection: psycopg.Connection[Any]) -> bool:
    """Send what cleans the session, in no transaction. Return whether it succeeded."""
    if connection.closed or connection.pgconn.transaction_status != TransactionStatus.IDLE:
        return False
    try:
        return connection.pgconn.exec_(_CLEAN).status in (
            ExecStatus.TUPLES_OK,
            ExecStatus.COMMAND_OK,
        )
    except psycopg.Error:
        return False
