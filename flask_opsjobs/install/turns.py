"""Lets one migration of our schema run at a time; another one waits for its turn."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from time import sleep

from psycopg import IsolationLevel
from sqlalchemy import Connection

from ..core.db import connect_apart
from ..errors import MigrationBlocked

# Locks of a transaction, so they work through PgBouncer too. `CREATE INDEX CONCURRENTLY` runs in none: while
# indexes are created, a transaction of another session has the second lock.
_STEPS = "SELECT pg_try_advisory_xact_lock(hashtextextended('opsjobs migration', 0))"
_INDEXES = "SELECT pg_try_advisory_xact_lock(hashtextextended('opsjobs migration of indexes', 0))"
# The locks are asked for again and again: a statement that waits for one has a snapshot, and
# `CREATE INDEX CONCURRENTLY` waits for the end of the transaction of each.
_PAUSE = 0.1
_MOST_SECONDS = 900.0


def take_turn(connection: Connection) -> None:
    """Wait for other migrations, and let others wait until the transaction ends.

    Raises `MigrationBlocked` when the other one takes too long.
    """
    _wait(lambda: bool(connection.exec_driver_sql(_STEPS).scalar()))


@contextmanager
def turn_of_indexes(connection: Connection) -> Iterator[None]:
    """Let the indexes of other migrations wait during the block, as `take_turn` does."""
    with closing(connect_apart(connection.engine)) as session:
        # In another isolation level it would have a snapshot.
        session.isolation_level = IsolationLevel.READ_COMMITTED
        session.autocommit = False

        def is_free() -> bool:
            if session.execute(_INDEXES).fetchone() == (True,):
                return True
            # Whoever has the lock creates indexes, and would wait for this transaction. This also forgets the
            # statement, which psycopg would prepare; a prepared one keeps its snapshot.
            session.rollback()
            return False

        _wait(is_free)
        yield


def _wait(is_free: Callable[[], bool]) -> None:
    begun = time.monotonic()
    while not is_free():
        if time.monotonic() - begun > _MOST_SECONDS:
            raise MigrationBlocked(
                f"another migration of the schema opsjobs has run for {_MOST_SECONDS / 60:g} minutes: let "
                "it end, then run this one again"
            )
        sleep(_PAUSE)
