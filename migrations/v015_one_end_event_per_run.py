"""Schema version 15: one end event of a run names all steps that a statement ended."""

from __future__ import annotations

from typing import Any

EVENTS = (
    """
ALTER TABLE opsjobs.workflow_end_events
    ALTER COLUMN job_id TYPE bigint[] USING ARRAY[job_id]
""",
    "ALTER TABLE opsjobs.workflow_end_events RENAME COLUMN job_id TO job_ids",
    """
ALTER TABLE opsjobs.workflow_end_events
    ADD CONSTRAINT workflow_end_events_job_ids_check CHECK (cardinality(job_ids) >= 1)
""",
)

EVENTS_OF_ONE_STEP = (
    "ALTER TABLE opsjobs.workflow_end_events ADD COLUMN job_id bigint",
    """
INSERT INTO opsjobs.workflow_end_events (workflow_id, job_ids, job_id)
SELECT workflow_id, job_ids, unnest(job_ids) FROM opsjobs.workflow_end_events
""",
    "DELETE FROM opsjobs.workflow_end_events WHERE job_id IS NULL",
    "ALTER TABLE opsjobs.workflow_end_events DROP COLUMN job_ids",
    "ALTER TABLE opsjobs.workflow_end_events ALTER COLUMN job_id SET NOT NULL",
)

# Version 15 needs no index.
INDEXES: dict[str, tuple[str, str]] = {}


def upgrade(op: Any) -> None:
    """Let an event name several steps. The table is small: its rows are deleted within a second."""
    for statement in EVENTS:
        op.execute(statement)


def downgrade(op: Any) -> None:
    """Make an event for each step."""
    for statement in EVENTS_OF_ONE_STEP:
        op.execute(statement)
