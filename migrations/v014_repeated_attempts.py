"""Schema version 14: an index of attempts that repeat another one, for the detector of retry storms."""

from __future__ import annotations

from typing import Any

INDEXES = {
    "attempts_repeated": (
        "attempts (ended_at) WHERE attempt >= 2",
        "detect: attempts that repeat another one, the newest first",
    ),
}


def upgrade(_op: Any) -> None:
    """Nothing: the runner makes the index."""


def downgrade(op: Any) -> None:
    """Drop the index."""
    op.execute("DROP INDEX opsjobs.attempts_repeated")
