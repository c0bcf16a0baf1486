-- Inserts plain RQ jobs that a look saw for the first time, with RQ's facts, and returns (id, RQ id).
-- Leaves out those that another copy of the loop has inserted meanwhile. Their number is no part of the
-- integrity check.
-- Rows: rq.
-- Run by the adopt loop. Index: jobs_of_rq.
WITH seen AS MATERIALIZED (
    SELECT * FROM json_to_recordset(%(rows)s) AS s (rq_id text, rq_created_at timestamptz,
    state text, queue text, task text, rq_status text, attempt integer, max_attempts integer,
    timeout_seconds integer, due_at timestamptz, ended_by text, error text, structure text, depends_on text[],
    allows_failure boolean, group_id text, cron text, repeats_left integer, retries_left integer,
    rate_limit_key text, ttl_seconds bigint, created_at timestamptz, dispatched_at timestamptz,
    started_at timestamptz, ended_at timestamptz, created_source text, dispatched_source text,
    started_source text, ended_source text, created_after timestamptz, dispatched_after timestamptz,
    started_after timestamptz, ended_after timestamptz)
), new AS (
    INSERT INTO opsjobs.jobs AS j (origin, rq_place, rq_id, rq_created_at, task, queue, lane, state, args,
        attempt, max_attempts, dispatch_no, timeout_seconds, created_at, due_at, dispatched_at, started_at,
        ended_at, ended_by, error, rq_status)
    SELECT 'rq', %(place)s, rq_id, rq_created_at, task, queue, queue, state, '{}', attempt, max_attempts,
        attempt, timeout_seconds, created_at, due_at, dispatched_at, started_at, ended_at, ended_by, error,
        rq_status
    FROM seen ORDER BY created_at, rq_id
    ON CONFLICT (rq_place, rq_id, rq_created_at) WHERE origin = 'rq' DO NOTHING
    RETURNING j.id, j.rq_id
), facts AS (
    INSERT INTO opsjobs.rq_facts (job_id, changed_at,
        structure, depends_on, allows_failure, group_id, cron, repeats_left, retries_left, rate_limit_key,
        ttl_seconds, created_source, dispatched_source, started_source, ended_source, created_after,
        dispatched_after, started_after, ended_after)
    SELECT new.id, %(looked_at)s,
        structure, depends_on, allows_failure, group_id, cron, repeats_left, retries_left, rate_limit_key,
        ttl_seconds, created_source, dispatched_source, started_source, ended_source, created_after,
        dispatched_after, started_after, ended_after
    FROM new JOIN seen ON seen.rq_id = new.rq_id
)
SELECT id, rq_id FROM new
