"""Reads the notes on a subject, for pages and forensics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy.orm import Session

from ..core import sql

MOST_NOTES = 50


@dataclass(frozen=True)
class NoteRow:
    """A note as stored, with the number of its row in the audit. It has not passed the display policy yet."""

    sequence: int
    at: datetime
    actor: str
    text: str


def list_notes(session: Session, subject: str, limit: int = MOST_NOTES) -> Sequence[NoteRow]:
    """The last `limit` notes on a subject, such as `job/42`, newest first."""
    values = {"subject": subject, "limit": limit}
    rows = session.connection().exec_driver_sql(sql.load("list_notes"), values)
    return [NoteRow(*row) for row in rows]
