"""Schema version 22: totals that never shrink, the jobs in each state, and those that ended in a worker."""

from __future__ import annotations

from typing import Any

from flask_opsjobs.install.grants import grant_tables

QUEUE_TOTALS = """
CREATE TABLE opsjobs.queue_totals (
    queue text NOT NULL,
    enqueued bigint DEFAULT 0 NOT NULL,
    finished bigint DEFAULT 0 NOT NULL,
    failed bigint DEFAULT 0 NOT NULL,
    canceled bigint DEFAULT 0 NOT NULL,
    waits bigint[] DEFAULT '{}'::bigint[] NOT NULL,
    runs bigint[] DEFAULT '{}'::bigint[] NOT NULL,
    wait_seconds double precision DEFAULT 0 NOT NULL,
    run_seconds double precision DEFAULT 0 NOT NULL,
    CONSTRAINT queue_totals_pkey PRIMARY KEY (queue),
    CONSTRAINT queue_totals_positive_check CHECK (
        enqueued >= 0 AND finished >= 0 AND failed >= 0 AND canceled >= 0
        AND wait_seconds >= 0 AND run_seconds >= 0)
)
"""

SLOT_TOTALS = """
CREATE TABLE opsjobs.slot_totals (
    result text NOT NULL,
    slots bigint NOT NULL,
    CONSTRAINT slot_totals_pkey PRIMARY KEY (result),
    CONSTRAINT slot_totals_positive_check CHECK (slots >= 0)
)
"""

ACTION_TOTALS = """
CREATE TABLE opsjobs.action_totals (
    action text NOT NULL,
    outcome text NOT NULL,
    decisions bigint NOT NULL,
    CONSTRAINT action_totals_pkey PRIMARY KEY (action, outcome),
    CONSTRAINT action_totals_positive_check CHECK (decisions >= 0)
)
"""

WORKERS = """
ALTER TABLE opsjobs.workers
    ADD COLUMN jobs_finished bigint DEFAULT 0 NOT NULL,
    ADD COLUMN jobs_failed bigint DEFAULT 0 NOT NULL,
    ADD COLUMN work_seconds double precision DEFAULT 0 NOT NULL
"""

WORKERS_WITHOUT = """
ALTER TABLE opsjobs.workers DROP COLUMN jobs_finished, DROP COLUMN jobs_failed, DROP COLUMN work_seconds
"""

INDEXES: dict[str, tuple[str, str]] = {}


def upgrade(op: Any) -> None:
    """Create the tables and the columns. Totals begin at 0, except those of actions: the audit is counted."""
    for statement in (QUEUE_TOTALS, SLOT_TOTALS, ACTION_TOTALS):
        op.execute(statement)
    grant_tables(op, "queue_totals", "slot_totals", "action_totals")
    op.execute(
        "ALTER TABLE opsjobs.rollup_position ADD COLUMN audit_sequence bigint DEFAULT 0 NOT NULL"
    )
    op.execute(
        "ALTER TABLE opsjobs.integrity_checks ADD COLUMN states jsonb DEFAULT '{}'::jsonb NOT NULL"
    )
    op.execute(WORKERS)


def downgrade(op: Any) -> None:
    """Drop the tables and the columns."""
    op.execute(WORKERS_WITHOUT)
    op.execute("ALTER TABLE opsjobs.integrity_checks DROP COLUMN states")
    op.execute("ALTER TABLE opsjobs.rollup_position DROP COLUMN audit_sequence")
    op.execute("DROP TABLE opsjobs.queue_totals, opsjobs.slot_totals, opsjobs.action_totals")
