"""Checks the invariants of batches, for tests and for a look by hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from psycopg.rows import class_row

from ..core import sql
from ..core.db import Connection


@dataclass(frozen=True)
class BrokenBatch:
    """An invariant that does not hold for a batch: its stable code, the batch, and a sentence about it."""

    code: str
    batch: int
    says: str


def check_batches(
    connection: Connection, batches: Sequence[int] | None = None
) -> list[BrokenBatch]:
    """The invariants that do not hold for these batches, by default for all; empty when all hold.

    Call it while nothing changes: a batch that is being folded at that moment may be listed. Counts all
    members, so batches of 100,000 or more are left out; locks nothing.
    """
    with connection.cursor(row_factory=class_row(BrokenBatch)) as cursor:
        ids = None if batches is None else list(batches)
        return cursor.execute(sql.load("check_batches"), {"ids": ids}).fetchall()
