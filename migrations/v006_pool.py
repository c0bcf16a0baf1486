"""Schema version 6: a worker reserves jobs before it begins them, and is known by its process."""

from __future__ import annotations

from typing import Any

# No index: few jobs are queued at a time, and jobs_queued finds them all.
JOBS = """
ALTER TABLE opsjobs.jobs
    ADD COLUMN reserved_by bigint,
    ADD COLUMN lost_reservations smallint DEFAULT 0 NOT NULL,
    ADD CONSTRAINT jobs_reserved_is_queued_check CHECK (reserved_by IS NULL OR state = 'queued') NOT VALID,
    ADD CONSTRAINT jobs_lost_reservations_check CHECK (lost_reservations >= 0) NOT VALID
"""

JOBS_WITHOUT = """
ALTER TABLE opsjobs.jobs
    DROP COLUMN reserved_by,
    DROP COLUMN lost_reservations
"""

ATTEMPTS = "ALTER TABLE opsjobs.attempts ADD COLUMN pid integer"

# Together the last three and the pid name one process among all that ever ran.
WORKERS = (
    """
    ALTER TABLE opsjobs.workers
        DROP CONSTRAINT workers_kind_check,
        DROP CONSTRAINT workers_numbers_check,
        ADD COLUMN processes integer DEFAULT 1 NOT NULL,
        ADD COLUMN left_children jsonb DEFAULT '[]' NOT NULL,
        ADD COLUMN pool jsonb DEFAULT '{}' NOT NULL,
        ADD COLUMN boot_id text,
        ADD COLUMN pid_namespace text,
        ADD COLUMN pid_started_at bigint
    """,
    "UPDATE opsjobs.workers SET kind = 'pool' WHERE kind <> 'plain'",
    """
    ALTER TABLE opsjobs.workers
        ADD CONSTRAINT workers_kind_check CHECK (kind IN ('pool', 'plain')),
        ADD CONSTRAINT workers_numbers_check CHECK (pid >= 0 AND heartbeat_no >= 0 AND run_seconds >= 0
            AND rss_kb >= 0 AND silent_seconds >= 0 AND processes >= 1)
    """,
)

WORKERS_WITHOUT = (
    """
    ALTER TABLE opsjobs.workers
        DROP CONSTRAINT workers_kind_check,
        DROP CONSTRAINT workers_numbers_check,
        DROP COLUMN processes,
        DROP COLUMN left_children,
        DROP COLUMN pool,
        DROP COLUMN boot_id,
        DROP COLUMN pid_namespace,
        DROP COLUMN pid_started_at
    """,
    "UPDATE opsjobs.workers SET kind = 'forking' WHERE kind <> 'plain'",
    """
    ALTER TABLE opsjobs.workers
        ADD CONSTRAINT workers_kind_check CHECK (kind IN ('forking', 'simple', 'plain')),
        ADD CONSTRAINT workers_numbers_check CHECK (pid >= 0 AND heartbeat_no >= 0 AND run_seconds >= 0
            AND rss_kb >= 0 AND silent_seconds >= 0)
    """,
)


# Version 6 needs no index: see above.
INDEXES: dict[str, tuple[str, str]] = {}


def upgrade(op: Any) -> None:
    """Add what version 6 brings."""
    for statement in (JOBS, ATTEMPTS, *WORKERS):
        op.execute(statement)


def downgrade(op: Any) -> None:
    """Take version 6 back. A job that a worker has reserved is `queued` then, and is recalled."""
    for statement in (
        JOBS_WITHOUT,
        "ALTER TABLE opsjobs.attempts DROP COLUMN pid",
        *WORKERS_WITHOUT,
    ):
        op.execute(statement)
