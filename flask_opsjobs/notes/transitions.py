"""Locks and reads the subjects of notes for an operator's decision. A note itself is a row of the audit."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from psycopg.rows import class_row

from ..core import sql
from ..core.db import Connection


@dataclass(frozen=True)
class SubjectForDecision:
    """A subject that exists, its name for people, and who wrote its newest note, and what."""

    target: str
    label: str
    newest_actor: str | None
    newest_text: str | None


def lock(connection: Connection, targets: Collection[str]) -> None:
    """Let nobody else add a note to these subjects until the commit."""
    connection.execute(sql.load("lock_notes"), {"targets": list(targets)})


def read(connection: Connection, targets: Collection[str]) -> dict[str, SubjectForDecision]:
    """Those of these subjects that exist, by target."""
    with connection.cursor(row_factory=class_row(SubjectForDecision)) as cursor:
        found = cursor.execute(sql.load("read_subjects_of_notes"), {"targets": list(targets)})
        return {subject.target: subject for subject in found}
