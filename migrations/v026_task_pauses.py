"""Schema version 26: which tasks an operator paused."""

from __future__ import annotations

from typing import Any

from flask_opsjobs.install.grants import grant_tables

TASK_PAUSES = """
CREATE TABLE opsjobs.task_pauses (
    task text NOT NULL,
    paused_at timestamp with time zone NOT NULL,
    paused_by text NOT NULL,
    paused_reason text NOT NULL,
    CONSTRAINT task_pauses_pkey PRIMARY KEY (task)
)
"""

INDEXES: dict[str, tuple[str, str]] = {}


def upgrade(op: Any) -> None:
    """Create the table."""
    op.execute(TASK_PAUSES)
    grant_tables(op, "task_pauses")


def downgrade(op: Any) -> None:
    """Drop the table: what was paused runs again."""
    op.execute("DROP TABLE opsjobs.task_pauses")
