"""Schema version 9: a worker stores the version of the host's application."""

from __future__ import annotations

from typing import Any

# Version 9 needs no index.
INDEXES: dict[str, tuple[str, str]] = {}


def upgrade(op: Any) -> None:
    """Add the column to workers."""
    op.execute("ALTER TABLE opsjobs.workers ADD COLUMN deploy_version text")


def downgrade(op: Any) -> None:
    """Take the column away."""
    op.execute("ALTER TABLE opsjobs.workers DROP COLUMN deploy_version")
