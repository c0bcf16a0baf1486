"""Schema version 17: what each Redis was when a loop last looked at it."""

from __future__ import annotations

from typing import Any

# The loop observe writes it also where no plain jobs are adopted.
PLACES = """
ALTER TABLE opsjobs.rq_places
    ALTER COLUMN looked_at DROP NOT NULL,
    ADD COLUMN seen_at timestamptz,
    ADD COLUMN identity jsonb
"""

PLACES_WITHOUT = (
    "DELETE FROM opsjobs.rq_places WHERE looked_at IS NULL",
    """
ALTER TABLE opsjobs.rq_places
    ALTER COLUMN looked_at SET NOT NULL,
    DROP COLUMN seen_at,
    DROP COLUMN identity
""",
)

# Version 17 needs no index.
INDEXES: dict[str, tuple[str, str]] = {}


def upgrade(op: Any) -> None:
    """Add the columns."""
    op.execute(PLACES)


def downgrade(op: Any) -> None:
    """Take the columns away."""
    for statement in PLACES_WITHOUT:
        op.execute(statement)
