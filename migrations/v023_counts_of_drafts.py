"""Schema version 23: how many jobs of an operation were in which state when they were frozen."""

from __future__ import annotations

from typing import Any

INDEXES: dict[str, tuple[str, str]] = {}


def upgrade(op: Any) -> None:
    """Add the column: the page of a draft counted a million rows each time."""
    op.execute("ALTER TABLE opsjobs.operations ADD COLUMN frozen jsonb")


def downgrade(op: Any) -> None:
    """Take away the column: the rows can be counted again."""
    op.execute("ALTER TABLE opsjobs.operations DROP COLUMN frozen")
