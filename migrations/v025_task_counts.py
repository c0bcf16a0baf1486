"""Schema version 25: how many jobs of each task were enqueued and ended per minute and hour, and how."""

from __future__ import annotations

from typing import Any

from flask_opsjobs.install.grants import grant_tables

# A row of a thousand jobs stays in its page: to compress it would take longer than to write it.
TASK_ENDS = """
CREATE TABLE opsjobs.task_end_deltas (
    task text NOT NULL,
    minute timestamp with time zone NOT NULL,
    state text NOT NULL,
    number bigint NOT NULL,
    waits real[],
    runs real[],
    peak_kb bigint,
    CONSTRAINT task_end_deltas_positive_check CHECK (number >= 0)
)
WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000, vacuum_truncate = off,
    toast_tuple_target = 8160)
"""

_COUNTS = """
CREATE TABLE opsjobs.{table} (
    task text NOT NULL,
    {unit} timestamp with time zone NOT NULL,
    enqueued bigint DEFAULT 0 NOT NULL,
    finished bigint DEFAULT 0 NOT NULL,
    failed bigint DEFAULT 0 NOT NULL,
    canceled bigint DEFAULT 0 NOT NULL,
    waits bigint[] DEFAULT '{{}}'::bigint[] NOT NULL,
    runs bigint[] DEFAULT '{{}}'::bigint[] NOT NULL,
    wait_seconds double precision DEFAULT 0 NOT NULL,
    run_seconds double precision DEFAULT 0 NOT NULL,
    longest_wait double precision,
    longest_run double precision,
    peak_kb bigint,
    CONSTRAINT {table}_pkey PRIMARY KEY (task, {unit}),
    CONSTRAINT {table}_positive_check CHECK (
        enqueued >= 0 AND finished >= 0 AND failed >= 0 AND canceled >= 0
        AND wait_seconds >= 0 AND run_seconds >= 0)
)
"""

TASK_MINUTES = _COUNTS.format(table="task_minutes", unit="minute")
TASK_HOURS = _COUNTS.format(table="task_hours", unit="hour")

INDEXES = {
    "task_minutes_to_retain": ("task_minutes (minute)", "retention: minutes of tasks by age"),
    "task_hours_by_hour": (
        "task_hours (hour)",
        "tasks: the numbers of a day; retention: hours by age",
    ),
}


def upgrade(op: Any) -> None:
    """Create the tables and the column. It is empty, so no row is rewritten."""
    for statement in (TASK_ENDS, TASK_MINUTES, TASK_HOURS):
        op.execute(statement)
    grant_tables(op, "task_end_deltas", "task_minutes", "task_hours")
    op.execute("ALTER TABLE opsjobs.job_count_deltas ADD COLUMN task text")


def downgrade(op: Any) -> None:
    """Drop the column and the tables."""
    op.execute("ALTER TABLE opsjobs.job_count_deltas DROP COLUMN task")
    op.execute("DROP TABLE opsjobs.task_end_deltas, opsjobs.task_minutes, opsjobs.task_hours")
