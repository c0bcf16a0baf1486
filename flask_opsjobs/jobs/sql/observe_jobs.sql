-- Writes what a look at RQ saw of adopted jobs, and RQ's facts. The caller has locked the jobs, and has
-- left out those that a newer look or a worker has changed.
-- Rows: rq.
-- Run by the adopt loop. Indexes: jobs_pkey, rq_facts_pkey.
WITH seen AS MATERIALIZED (
    SELECT * FROM json_to_recordset(%(rows)s) AS s (id bigint,
    state text, queue text, task text, rq_status text, attempt integer, max_attempts integer,
    timeout_seconds integer, due_at timestamptz, ended_by text, error text, structure text, depends_on text[],
    allows_failure boolean, group_id text, cron text, repeats_left integer, retries_left integer,
    rate_limit_key text, ttl_seconds bigint, created_at timestamptz, dispatched_at timestamptz,
    started_at timestamptz, ended_at timestamptz, created_source text, dispatched_source text,
    started_source text, ended_source text, created_after timestamptz, dispatched_after timestamptz,
    started_after timestamptz, ended_after timestamptz)
), facts AS (
    UPDATE opsjobs.rq_facts f SET changed_at = %(looked_at)s,
        structure = s.structure, depends_on = s.depends_on, allows_failure = s.allows_failure,
        group_id = s.group_id, cron = s.cron, repeats_left = s.repeats_left, retries_left = s.retries_left,
        rate_limit_key = s.rate_limit_key, ttl_seconds = s.ttl_seconds, created_source = s.created_source,
        dispatched_source = s.dispatched_source, started_source = s.started_source,
        ended_source = s.ended_source, created_after = s.created_after,
        dispatched_after = s.dispatched_after, started_after = s.started_after, ended_after = s.ended_after
    FROM seen s WHERE f.job_id = s.id
)
UPDATE opsjobs.jobs j SET state = s.state, queue = s.queue, lane = s.queue, task = s.task,
    rq_status = s.rq_status, attempt = s.attempt, max_attempts = s.max_attempts, dispatch_no = s.attempt,
    timeout_seconds = s.timeout_seconds, due_at = s.due_at, dispatched_at = s.dispatched_at,
    started_at = s.started_at, ended_at = s.ended_at, ended_by = s.ended_by, error = s.error
FROM seen s WHERE j.id = s.id
