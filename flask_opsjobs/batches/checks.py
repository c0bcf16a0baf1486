"""Checks the invariants of batches, for the doctor and for tests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from psycopg.rows import class_row

from ..core import sql
from ..core.db import Connection


@dataclass(frozen=True)
class BrokenBatch:
    """A fact that contradicts an invariant: a stable code, the batch, a sentence."""

    code: str
    batch: int
    says: str


def check_batches(
    connection: Connection, batches: Sequence[int] | None = None
) -> list[BrokenBatch]:
    """What contradicts the invariants of these batches, by default of all; empty when everything is well.

    Meant for a moment at rest: a batch that is being folded right now may be listed. Counts all members.
    Locks nothing.
    """
    with connection.cursor(row_factory=class_row(BrokenBatch)) as cursor:
        ids = None if batches is None else list(batches)
        return cursor.execute(sql.load("check_batches"), {"ids": ids}).fetchall()
