"""Schema version 20: an index for the receipts of an operation by result."""

from __future__ import annotations

from typing import Any

INDEXES = {
    "operation_rows_by_result": (
        "operation_rows (operation_id, result, number) INCLUDE (code)"
        " WHERE result NOT IN ('pending', 'done')",
        "operation: its receipts of one result, and why rows were skipped",
    ),
}


def upgrade(_op: Any) -> None:
    """Nothing: the runner makes the index."""


def downgrade(op: Any) -> None:
    """Drop the index."""
    op.execute("DROP INDEX opsjobs.operation_rows_by_result")
