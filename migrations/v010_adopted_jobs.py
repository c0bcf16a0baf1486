"""Schema version 10: plain RQ jobs get rows, with RQ's facts about them, and may end unseen."""

from __future__ import annotations

from typing import Any

from flask_opsjobs.install import indexes
from flask_opsjobs.install.grants import grant_tables

# The rules of version 8, with the state `unknown` and its end, which only adopted jobs have. No older version
# writes an adopted job, so no row breaks the new rules. The function keeps its parameters: so the constraint
# stays, and Postgres does not read the whole table.
IS_LEGAL_JOB = """
CREATE OR REPLACE FUNCTION opsjobs.is_legal_job(origin text, state text, dispatched_at timestamptz,
    started_at timestamptz, ended_at timestamptz, ended_by text, reserved_by bigint, priority smallint,
    attempt integer, max_attempts integer, dispatch_no bigint, failed_deliveries smallint,
    lost_reservations smallint, timeout_seconds integer, unique_key bytea, unique_until text,
    cancel_requested_at timestamptz, cancel_requested_by text, cancel_reason text, limiter text,
    partition text, weight integer)
RETURNS boolean LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
BEGIN
    RETURN (origin IN ('opsjobs', 'rq'))
        AND (state IN ('deferred', 'scheduled', 'available', 'queued', 'started', 'retryable', 'finished',
            'failed', 'canceled', 'unknown'))
        AND (ended_by IN ('returned', 'exhausted', 'deadline', 'invalid_args', 'unknown_task',
            'undeliverable', 'unrecordable', 'canceled', 'discarded', 'dependency', 'result_missing',
            'too_large', 'signaled', 'skipped', 'unseen'))
        AND ((state IN ('finished', 'failed', 'canceled', 'unknown')) = (ended_at IS NOT NULL))
        AND ((ended_at IS NULL) = (ended_by IS NULL))
        AND (state <> 'queued' OR dispatched_at IS NOT NULL)
        AND (state <> 'started' OR started_at IS NOT NULL)
        AND (reserved_by IS NULL OR state = 'queued')
        AND (priority BETWEEN 0 AND 9)
        AND (attempt >= 0 AND max_attempts >= 1)
        AND (dispatch_no >= 0)
        AND (failed_deliveries >= 0)
        AND (lost_reservations >= 0)
        AND (timeout_seconds > 0)
        AND (unique_until IN ('within', 'ended', 'forever'))
        AND ((unique_key IS NULL) = (unique_until IS NULL))
        AND ((cancel_requested_at IS NULL) = (cancel_requested_by IS NULL)
            AND (cancel_requested_at IS NULL) = (cancel_reason IS NULL))
        AND ((limiter IS NULL) = (partition IS NULL) AND (limiter IS NULL) = (weight IS NULL))
        AND (weight >= 1)
        AND (state <> 'available' OR origin = 'opsjobs')
        AND (state <> 'unknown' OR origin = 'rq')
        AND ((state = 'unknown') = (ended_by IS NOT DISTINCT FROM 'unseen'));
END
$$
"""

# The rules of version 8.
IS_LEGAL_JOB_WITHOUT = """
CREATE OR REPLACE FUNCTION opsjobs.is_legal_job(origin text, state text, dispatched_at timestamptz,
    started_at timestamptz, ended_at timestamptz, ended_by text, reserved_by bigint, priority smallint,
    attempt integer, max_attempts integer, dispatch_no bigint, failed_deliveries smallint,
    lost_reservations smallint, timeout_seconds integer, unique_key bytea, unique_until text,
    cancel_requested_at timestamptz, cancel_requested_by text, cancel_reason text, limiter text,
    partition text, weight integer)
RETURNS boolean LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
BEGIN
    RETURN (origin IN ('opsjobs', 'rq'))
        AND (state IN ('deferred', 'scheduled', 'available', 'queued', 'started', 'retryable', 'finished',
            'failed', 'canceled'))
        AND (ended_by IN ('returned', 'exhausted', 'deadline', 'invalid_args', 'unknown_task',
            'undeliverable', 'unrecordable', 'canceled', 'discarded', 'dependency', 'result_missing',
            'too_large', 'signaled', 'skipped'))
        AND ((state IN ('finished', 'failed', 'canceled')) = (ended_at IS NOT NULL))
        AND ((ended_at IS NULL) = (ended_by IS NULL))
        AND (state <> 'queued' OR dispatched_at IS NOT NULL)
        AND (state <> 'started' OR started_at IS NOT NULL)
        AND (reserved_by IS NULL OR state = 'queued')
        AND (priority BETWEEN 0 AND 9)
        AND (attempt >= 0 AND max_attempts >= 1)
        AND (dispatch_no >= 0)
        AND (failed_deliveries >= 0)
        AND (lost_reservations >= 0)
        AND (timeout_seconds > 0)
        AND (unique_until IN ('within', 'ended', 'forever'))
        AND ((unique_key IS NULL) = (unique_until IS NULL))
        AND ((cancel_requested_at IS NULL) = (cancel_requested_by IS NULL)
            AND (cancel_requested_at IS NULL) = (cancel_reason IS NULL))
        AND ((limiter IS NULL) = (partition IS NULL) AND (limiter IS NULL) = (weight IS NULL))
        AND (weight >= 1);
END
$$
"""

JOBS = """
ALTER TABLE opsjobs.jobs
    ADD COLUMN rq_place text,
    ADD COLUMN rq_id text,
    ADD COLUMN rq_created_at timestamptz
"""

JOBS_WITHOUT = """
ALTER TABLE opsjobs.jobs
    DROP COLUMN rq_place,
    DROP COLUMN rq_id,
    DROP COLUMN rq_created_at
"""

ATTEMPTS = "ALTER TABLE opsjobs.attempts ADD COLUMN execution_id text"

TABLES = {
    "rq_facts": """
        CREATE TABLE opsjobs.rq_facts (
            job_id bigint NOT NULL PRIMARY KEY,
            structure text,
            depends_on text[] DEFAULT '{}' NOT NULL,
            allows_failure boolean DEFAULT false NOT NULL,
            group_id text,
            cron text,
            repeats_left integer,
            retries_left integer,
            rate_limit_key text,
            ttl_seconds bigint,
            created_source text NOT NULL,
            dispatched_source text,
            started_source text,
            ended_source text,
            created_after timestamptz,
            dispatched_after timestamptz,
            started_after timestamptz,
            ended_after timestamptz,
            changed_at timestamptz NOT NULL,
            CONSTRAINT rq_facts_structure_check CHECK (structure IN ('list', 'intermediate', 'started',
                'deferred', 'scheduled', 'ready', 'rate_limited', 'failed', 'finished', 'canceled')),
            CONSTRAINT rq_facts_created_source_check CHECK (created_source IN ('rq', 'worker', 'observer')),
            CONSTRAINT rq_facts_dispatched_source_check CHECK (
                dispatched_source IN ('rq', 'worker', 'observer')),
            CONSTRAINT rq_facts_started_source_check CHECK (started_source IN ('rq', 'worker', 'observer')),
            CONSTRAINT rq_facts_ended_source_check CHECK (ended_source IN ('rq', 'worker', 'observer')),
            CONSTRAINT rq_facts_created_after_check CHECK (
                created_after IS NULL OR created_source = 'observer'),
            CONSTRAINT rq_facts_dispatched_after_check CHECK (
                dispatched_after IS NULL OR dispatched_source = 'observer'),
            CONSTRAINT rq_facts_started_after_check CHECK (
                started_after IS NULL OR started_source = 'observer'),
            CONSTRAINT rq_facts_ended_after_check CHECK (ended_after IS NULL OR ended_source = 'observer')
        )
    """,
    "rq_views": """
        CREATE TABLE opsjobs.rq_views (
            job_id bigint NOT NULL PRIMARY KEY,
            function text,
            arguments text,
            result text
        )
    """,
    "rq_places": """
        CREATE TABLE opsjobs.rq_places (
            name text NOT NULL PRIMARY KEY,
            looked_at timestamptz NOT NULL,
            walked_at timestamptz
        )
    """,
}

# No foreign keys to jobs: Postgres would look for facts of each managed job that is deleted.
TRIGGER = (
    """
    CREATE FUNCTION opsjobs.delete_facts_of_deleted_jobs() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF EXISTS (SELECT FROM deleted WHERE origin = 'rq') THEN
            DELETE FROM opsjobs.rq_facts f USING deleted d WHERE f.job_id = d.id;
            DELETE FROM opsjobs.rq_views v USING deleted d WHERE v.job_id = d.id;
        END IF;
        RETURN NULL;
    END $$
    """,
    """
    CREATE TRIGGER jobs_delete_facts AFTER DELETE ON opsjobs.jobs REFERENCING OLD TABLE AS deleted
        FOR EACH STATEMENT EXECUTE FUNCTION opsjobs.delete_facts_of_deleted_jobs()
    """,
)

TRIGGER_WITHOUT = (
    "DROP TRIGGER jobs_delete_facts ON opsjobs.jobs",
    "DROP FUNCTION opsjobs.delete_facts_of_deleted_jobs()",
)

# These indexes of version 1 were for all rows. Only managed jobs are staged and dispatched: plain ones would
# make them longer for nothing.
REPLACED = {
    "jobs_to_stage": (
        "jobs (due_at) WHERE state IN ('scheduled', 'retryable')",
        "stage: scheduled and retryable rows that have become due",
    ),
    "jobs_queued": (
        "jobs (queue, dispatched_at) WHERE state = 'queued'",
        "dispatch: how much of a queue lies in Redis; recall: rows dispatched some seconds ago",
    ),
}

INDEXES = {
    "jobs_to_stage": (
        "jobs (due_at) WHERE state IN ('scheduled', 'retryable') AND origin = 'opsjobs'",
        "stage: scheduled and retryable rows that have become due",
    ),
    "jobs_queued": (
        "jobs (queue, dispatched_at) WHERE state = 'queued' AND origin = 'opsjobs'",
        "dispatch: how much of a queue lies in Redis; recall: rows dispatched some seconds ago",
    ),
    "jobs_of_rq": (
        "UNIQUE jobs (rq_place, rq_id, rq_created_at) NULLS NOT DISTINCT WHERE origin = 'rq'",
        "adopt: one row for each job of RQ, by its id",
    ),
    "jobs_open_of_rq": (
        "jobs (rq_place, id) WHERE origin = 'rq' AND ended_at IS NULL",
        "adopt: jobs of one Redis that have not ended",
    ),
    "rq_facts_depends_on": (
        "rq_facts USING gin (depends_on) WHERE depends_on <> '{}'",
        "jobs that wait for one of these",
    ),
}


def upgrade(op: Any) -> None:
    """Add what version 10 brings."""
    for statement in (IS_LEGAL_JOB, JOBS, ATTEMPTS, *TABLES.values(), *TRIGGER):
        op.execute(statement)
    for name in REPLACED:
        op.execute(f"DROP INDEX opsjobs.{name}")
    grant_tables(op, *TABLES)


def downgrade(op: Any) -> None:
    """Take version 10 back, with all adopted jobs: they are still in Redis, as far as RQ keeps them."""
    op.execute("DELETE FROM opsjobs.jobs WHERE origin = 'rq'")
    for statement in TRIGGER_WITHOUT:
        op.execute(statement)
    for table in TABLES:
        op.execute(f"DROP TABLE opsjobs.{table}")
    op.execute("ALTER TABLE opsjobs.attempts DROP COLUMN execution_id")
    for name in REPLACED:
        op.execute(f"DROP INDEX opsjobs.{name}")
    indexes.create(op, REPLACED)
    for statement in (JOBS_WITHOUT, IS_LEGAL_JOB_WITHOUT):
        op.execute(statement)
