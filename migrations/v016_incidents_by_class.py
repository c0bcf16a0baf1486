"""Schema version 16: indexes of incidents by class and by severity, for the lists of Lifeline."""

from __future__ import annotations

from typing import Any

INDEXES = {
    "incidents_by_class": (
        "incidents (class, opened_at, id)",
        "Lifeline: incidents of one class, the newest first",
    ),
    "incidents_by_severity": (
        "incidents (severity, opened_at, id)",
        "Lifeline: incidents of one severity, the newest first",
    ),
}


def upgrade(_op: Any) -> None:
    """Nothing: the runner makes the indexes."""


def downgrade(op: Any) -> None:
    """Drop the indexes."""
    op.execute("DROP INDEX opsjobs.incidents_by_severity")
    op.execute("DROP INDEX opsjobs.incidents_by_class")
