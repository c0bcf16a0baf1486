"""Defines what a turn of `advance` and a turn of `fold` share: how long it waits, and its result."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from psycopg.pq import TransactionStatus
from psycopg.rows import dict_row, namedtuple_row

from ..core import sql
from ..core.db import Connection

# How long a statement of a turn waits for a row that somebody has locked. The recorder of a worker makes
# turns, and its heartbeats must not be late. Shorter than the time after which Postgres looks for deadlocks.
_PATIENCE = "100ms"


@dataclass(frozen=True)
class Advanced:
    """The result of one turn: the (lane, queue) pairs to dispatch, and whether there is more to do.

    `is_idle`: nothing was written.
    """

    lanes: tuple[tuple[str, str], ...]
    has_more: bool
    is_idle: bool


def patience_of(connection: Connection) -> str | None:
    """How long each statement of a turn that begins now waits for a lock.

    None in a transaction of the caller: then the caller's time-out counts.
    """
    return _PATIENCE if connection.info.transaction_status == TransactionStatus.IDLE else None


def one(connection: Connection, statement: str, **values: Any) -> dict[str, Any] | None:
    """The first row of one of our statements, columns by name; None without a row."""
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(sql.load(statement), values).fetchone()


def rows(connection: Connection, statement: str, **values: Any) -> list[Any]:
    """The rows of one of our statements, columns as attributes."""
    with connection.cursor(row_factory=namedtuple_row) as cursor:
        return cursor.execute(sql.load(statement), values).fetchall()
