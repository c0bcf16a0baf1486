"""Schema version 8: one function checks a row of jobs, instead of nineteen constraints."""

from __future__ import annotations

from typing import Any

from flask_opsjobs.install.grants import grant_functions

# Postgres parses the text of each CHECK of a table for every statement that writes a row, and the body of a
# function once per session.
IS_LEGAL_JOB = """
CREATE FUNCTION opsjobs.is_legal_job(origin text, state text, dispatched_at timestamptz,
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
    DROP CONSTRAINT jobs_origin_check,
    DROP CONSTRAINT jobs_state_check,
    DROP CONSTRAINT jobs_ended_by_check,
    DROP CONSTRAINT jobs_final_has_end_check,
    DROP CONSTRAINT jobs_end_is_whole_check,
    DROP CONSTRAINT jobs_priority_check,
    DROP CONSTRAINT jobs_attempts_check,
    DROP CONSTRAINT jobs_dispatch_no_check,
    DROP CONSTRAINT jobs_failed_deliveries_check,
    DROP CONSTRAINT jobs_timeout_check,
    DROP CONSTRAINT jobs_queued_has_time_check,
    DROP CONSTRAINT jobs_started_has_time_check,
    DROP CONSTRAINT jobs_unique_until_check,
    DROP CONSTRAINT jobs_unique_is_whole_check,
    DROP CONSTRAINT jobs_cancel_request_is_whole_check,
    DROP CONSTRAINT jobs_limit_check,
    DROP CONSTRAINT jobs_weight_check,
    DROP CONSTRAINT jobs_reserved_is_queued_check,
    DROP CONSTRAINT jobs_lost_reservations_check,
    ADD CONSTRAINT jobs_is_legal_check CHECK (opsjobs.is_legal_job(origin, state, dispatched_at, started_at,
        ended_at, ended_by, reserved_by, priority, attempt, max_attempts, dispatch_no, failed_deliveries,
        lost_reservations, timeout_seconds, unique_key, unique_until, cancel_requested_at,
        cancel_requested_by, cancel_reason, limiter, partition, weight)) NOT VALID
"""

JOBS_WITHOUT = """
ALTER TABLE opsjobs.jobs
    DROP CONSTRAINT jobs_is_legal_check,
    ADD CONSTRAINT jobs_origin_check CHECK (origin IN ('opsjobs', 'rq')),
    ADD CONSTRAINT jobs_state_check CHECK (state IN ('deferred', 'scheduled', 'available', 'queued',
        'started', 'retryable', 'finished', 'failed', 'canceled')),
    ADD CONSTRAINT jobs_ended_by_check CHECK (ended_by IN ('returned', 'exhausted', 'deadline',
        'invalid_args', 'unknown_task', 'undeliverable', 'unrecordable', 'canceled', 'discarded',
        'dependency', 'result_missing', 'too_large', 'signaled', 'skipped')),
    ADD CONSTRAINT jobs_final_has_end_check CHECK (
        (state IN ('finished', 'failed', 'canceled')) = (ended_at IS NOT NULL)),
    ADD CONSTRAINT jobs_end_is_whole_check CHECK ((ended_at IS NULL) = (ended_by IS NULL)),
    ADD CONSTRAINT jobs_priority_check CHECK (priority BETWEEN 0 AND 9),
    ADD CONSTRAINT jobs_attempts_check CHECK (attempt >= 0 AND max_attempts >= 1),
    ADD CONSTRAINT jobs_dispatch_no_check CHECK (dispatch_no >= 0),
    ADD CONSTRAINT jobs_failed_deliveries_check CHECK (failed_deliveries >= 0),
    ADD CONSTRAINT jobs_timeout_check CHECK (timeout_seconds > 0),
    ADD CONSTRAINT jobs_queued_has_time_check CHECK ((state <> 'queued') OR (dispatched_at IS NOT NULL)),
    ADD CONSTRAINT jobs_started_has_time_check CHECK ((state <> 'started') OR (started_at IS NOT NULL)),
    ADD CONSTRAINT jobs_unique_until_check CHECK (unique_until IN ('within', 'ended', 'forever')),
    ADD CONSTRAINT jobs_unique_is_whole_check CHECK ((unique_key IS NULL) = (unique_until IS NULL)),
    ADD CONSTRAINT jobs_cancel_request_is_whole_check CHECK (
        (cancel_requested_at IS NULL) = (cancel_requested_by IS NULL)
        AND (cancel_requested_at IS NULL) = (cancel_reason IS NULL)),
    ADD CONSTRAINT jobs_limit_check CHECK (
        (limiter IS NULL) = (partition IS NULL) AND (limiter IS NULL) = (weight IS NULL)),
    ADD CONSTRAINT jobs_weight_check CHECK (weight >= 1),
    ADD CONSTRAINT jobs_reserved_is_queued_check CHECK (reserved_by IS NULL OR state = 'queued'),
    ADD CONSTRAINT jobs_lost_reservations_check CHECK (lost_reservations >= 0)
"""

# Version 8 needs no index.
INDEXES: dict[str, tuple[str, str]] = {}


def upgrade(op: Any) -> None:
    """Replace the constraints of jobs by one that calls a function with the same rules."""
    op.execute(IS_LEGAL_JOB)
    grant_functions(op, "is_legal_job")
    op.execute(JOBS)


def downgrade(op: Any) -> None:
    """Replace the function by the constraints."""
    op.execute(JOBS_WITHOUT)
    op.execute("DROP FUNCTION opsjobs.is_legal_job")
