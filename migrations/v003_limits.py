"""Schema version 3: limiters, their buckets and leases; a job knows which line of a limiter it waits in."""

from __future__ import annotations

from typing import Any

# The line itself is a column since version 1. `partition` is '' for a limiter without partitions.
JOBS = """
ALTER TABLE opsjobs.jobs
    ADD COLUMN limiter text,
    ADD COLUMN partition text,
    ADD COLUMN weight integer,
    ADD CONSTRAINT jobs_limit_check CHECK (
        (limiter IS NULL) = (partition IS NULL) AND (limiter IS NULL) = (weight IS NULL)),
    ADD CONSTRAINT jobs_weight_check CHECK (weight >= 1)
"""


def upgrade(op: Any) -> None:
    """Add what version 3 brings."""
    op.execute(JOBS)


def downgrade(op: Any) -> None:
    """Take version 3 back."""
    op.execute(
        "ALTER TABLE opsjobs.jobs DROP COLUMN limiter, DROP COLUMN partition, DROP COLUMN weight"
    )
