"""Schema version 12: a worker may be asked to leave, and may be forgotten."""

from __future__ import annotations

from typing import Any

WORKERS = """
ALTER TABLE opsjobs.workers
    ADD COLUMN drain_requested_at timestamptz,
    ADD COLUMN drain_requested_by text,
    ADD COLUMN forgotten_at timestamptz,
    ADD CONSTRAINT workers_drain_check CHECK (
        (drain_requested_at IS NULL) = (drain_requested_by IS NULL)),
    ADD CONSTRAINT workers_forgotten_check CHECK (forgotten_at IS NULL OR ended_at IS NOT NULL)
"""

WORKERS_WITHOUT = """
ALTER TABLE opsjobs.workers
    DROP COLUMN drain_requested_at,
    DROP COLUMN drain_requested_by,
    DROP COLUMN forgotten_at
"""

# Version 12 needs no index.
INDEXES: dict[str, tuple[str, str]] = {}


def upgrade(op: Any) -> None:
    """Add the columns to workers."""
    op.execute(WORKERS)


def downgrade(op: Any) -> None:
    """Take the columns away."""
    op.execute(WORKERS_WITHOUT)
