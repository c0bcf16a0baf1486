"""Keeps the sessions of Postgres that are closed in a test, for whoever opens one next.

For a new session Postgres forks a process, which reads the catalogs anew. So a closed session is kept, as new
but for its prepared statements: to plan these costs Postgres more than to run them.
"""

from __future__ import annotations

import contextlib
import os
from collections import defaultdict
from collections.abc import Generator
from typing import Any

import psycopg
import pytest
from psycopg import pq

_connect = psycopg.Connection._connect_gen.__func__  # type: ignore[attr-defined]
_close = psycopg.Connection.close
# Sessions of one address. Only tests of connections open more.
_MOST = 8
# `DISCARD ALL`, but for prepared statements and their plans. The last one answers for all: it selects.
_DISCARD = b"""
    SET SESSION AUTHORIZATION DEFAULT; RESET ALL; CLOSE ALL; UNLISTEN *; SELECT pg_advisory_unlock_all();
    DISCARD TEMP; DISCARD SEQUENCES; SELECT pg_stat_force_next_flush()
"""
# A session, and what psycopg knows of its prepared statements.
_Kept = tuple[pq.abc.PGconn, Any]


class KeptSessions:
    """A plugin that psycopg asks, once it is started, before it opens a session and before it closes one.

    A test that starts processes, or that is marked `sessions`, begins without kept sessions and leaves none.
    """

    def __init__(self) -> None:
        # Whose sessions are kept. Who drops one of these databases calls `forget` first.
        self.databases: set[str | None] = set()
        self._idle: dict[str, list[_Kept]] = defaultdict(list)
        self._keeps = False
        self._process = os.getpid()
        # A closed session: what a connection holds after its own one was taken from it.
        self._none = pq.PGconn.connect_start(b"host=/none")
        self._none.finish()

    def start(self) -> None:
        """Let psycopg ask from now on."""
        kept = self

        def connect(cls: type[psycopg.Connection[Any]], /, conninfo: str = "", **more: Any) -> Any:
            if (taken := kept._take(conninfo)) is None:
                made = yield from _connect(cls, conninfo, **more)
            else:
                session, prepared = taken
                made = cls(session)
                made._prepared = prepared
            made.address_of_test = conninfo
            return made

        def close(connection: psycopg.Connection[Any]) -> None:
            if not kept._keep(connection):
                _close(connection)

        setattr(psycopg.Connection, "_connect_gen", classmethod(connect))  # noqa: B010
        setattr(psycopg.Connection, "close", close)  # noqa: B010

    def pids(self) -> list[int]:
        """The process ids of the kept sessions, in Postgres."""
        return [session.backend_pid for kept in self._idle.values() for session, _ in kept]

    def forget(self, database: str | None = None) -> None:
        """Close the kept sessions of one database, or all."""
        for kept in self._idle.values():
            for each in kept[:]:
                session, _ = each
                if database is None or session.db == database.encode():
                    kept.remove(each)
                    session.finish()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, Any, Any]:
        if _has_its_own(item):
            self.forget()
            return (yield)
        self._keeps = True
        try:
            return (yield)
        finally:
            self._keeps = False

    def _take(self, address: str) -> _Kept | None:
        kept = self._idle[address] if os.getpid() == self._process else []
        # Another thread may take the last one.
        with contextlib.suppress(IndexError):
            while True:
                session, prepared = kept.pop()
                # One that Postgres has ended meanwhile does not answer.
                if session.exec_(b"").status == pq.ExecStatus.EMPTY_QUERY:
                    return session, prepared
                session.finish()
        return None

    def _keep(self, connection: Any) -> bool:
        if not self._keeps or connection.closed or os.getpid() != self._process:
            return False
        session = connection.pgconn
        kept = self._idle[connection.address_of_test]
        if (
            session.db.decode() not in self.databases
            or len(kept) == _MOST
            or session.transaction_status != pq.TransactionStatus.IDLE
            or session.exec_(_DISCARD).status != pq.ExecStatus.TUPLES_OK
        ):
            return False
        connection.pgconn = self._none
        connection._closed = True
        kept.append((session, connection._prepared))
        return True


def _has_its_own(item: pytest.Item) -> bool:
    """Whether the test must have new sessions, and no other test may have them later."""
    names = getattr(item, "fixturenames", ())
    return bool(
        "administrator" in names
        or item.get_closest_marker("processes")
        or item.get_closest_marker("sessions")
    )
