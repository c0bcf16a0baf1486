"""A process that kills itself between two statements, and what its parent waits for."""

from __future__ import annotations

import itertools
import os
import signal
from typing import Any

import psycopg

from flask_opsjobs.core.db import Connection
from tests.support.waiting import wait_until

# What each of these does at once, Postgres gets as one message.
_SENDING = (
    (psycopg.Cursor, "execute"),
    (psycopg.Cursor, "copy"),
    (psycopg.Connection, "commit"),
    (psycopg.Transaction, "__exit__"),
)

# The transactions of other sessions.
_OPEN = """
    SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND xact_start IS NOT NULL
        AND pid <> pg_backend_pid() AND backend_type = 'client backend'
"""


def die_before(number: int) -> None:
    """From now on count statements and commits, and SIGKILL this process before that one."""
    counted = itertools.count(1)
    for kind, name in _SENDING:
        _count(kind, name, counted, number)


def _count(kind: Any, name: str, counted: itertools.count[int], number: int) -> None:
    send = getattr(kind, name)

    def count_and_send(*args: Any, **kwargs: Any) -> Any:
        if next(counted) == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return send(*args, **kwargs)

    setattr(kind, name, count_and_send)


def wait_until_rolled_back(connection: Connection) -> None:
    """Wait until Postgres has noticed that a process is dead, and has given back what it had locked.

    `connection` commits each statement: within a transaction it would see the same sessions for ever.
    """
    wait_until(
        lambda: connection.execute(_OPEN).fetchall() == [],
        what="Postgres to roll back what a dead process had begun",
    )
