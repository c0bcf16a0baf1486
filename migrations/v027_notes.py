"""Schema version 27: an index of the notes in the audit."""

from __future__ import annotations

from typing import Any

INDEXES = {
    "audit_notes": (
        "audit_events ((targets[1]), sequence) WHERE action = 'note.add' AND outcome = 'done'",
        "notes: the newest of a subject",
    ),
}


def upgrade(op: Any) -> None:
    """Change nothing but the index: a note is a row of the audit."""


def downgrade(op: Any) -> None:
    """Drop the index."""
    for index in INDEXES:
        op.execute(f"DROP INDEX opsjobs.{index}")
