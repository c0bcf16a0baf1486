"""Checks the invariants of runs, for tests and for a look by hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from psycopg.rows import class_row

from ..core import sql
from ..core.db import Connection


@dataclass(frozen=True)
class BrokenInvariant:
    """A fact that contradicts an invariant: a stable code, the run, the step if there is one, a sentence."""

    code: str
    run: int
    step: str | None
    says: str


def checks(connection: Connection, runs: Sequence[int] | None = None) -> list[BrokenInvariant]:
    """What contradicts the invariants of these runs, by default of all; empty when everything is well.

    Meant for a moment at rest: a run that is being advanced right now may be listed. Locks nothing.
    """
    with connection.cursor(row_factory=class_row(BrokenInvariant)) as cursor:
        ids = None if runs is None else list(runs)
        return cursor.execute(sql.load("check_workflows"), {"ids": ids}).fetchall()
