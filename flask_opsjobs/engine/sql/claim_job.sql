-- Claims the delivery (id, dispatch_no) for a worker: locks and checks the job, starts the attempt and
-- records it. Returns one row when the job exists: its previous state, and the job itself when it was claimed
-- (taken_id not null). Does not claim a limited job unless %(ignore_limits)s: the caller has to check its
-- bucket first. The commit is asynchronous. A crash of Postgres may lose the claim, and nothing breaks:
-- `retry_or_end_jobs.sql` accepts a `queued` job with the same dispatch number, and recall or rescue find
-- the others.
-- Rows: opsjobs, by origin.
-- Run by a worker's parent before the fork. Index: jobs_pkey.
WITH hurried AS MATERIALIZED (
    SELECT set_config('synchronous_commit', 'off', true)
), moment AS MATERIALIZED (
    SELECT clock_timestamp() AS now FROM hurried
), locked AS MATERIALIZED (
    SELECT id, state, dispatch_no, deadline_at, limiter, partition, reserved_by,
           -- A retry after the connection broke: the first claim may have been committed. Or a retry after
           -- the process was frozen: the job may have been rescued meanwhile. The job has started already, so
           -- its deadline no longer matters here; the code that performs it checks the deadline.
           (%(is_retry)s AND state = 'started' AND worker_id = %(worker_id)s) AS is_ours
    FROM opsjobs.jobs WHERE id = %(id)s AND origin = 'opsjobs' FOR UPDATE
), taken AS (
    UPDATE opsjobs.jobs j
    SET state = 'started', attempt = j.attempt + (NOT l.is_ours)::int, started_at = m.now,
        worker_id = %(worker_id)s, failed_deliveries = 0, error = NULL
    FROM locked l, moment m
    WHERE j.id = l.id AND (l.state = 'queued' AND l.reserved_by IS NULL OR l.is_ours)
      AND l.dispatch_no = %(dispatch_no)s
      AND (l.deadline_at IS NULL OR l.is_ours OR l.deadline_at > m.now)
      AND (l.limiter IS NULL OR l.is_ours OR %(ignore_limits)s)
    RETURNING j.*
), noted AS (
    INSERT INTO opsjobs.attempts (job_id, dispatch_no, attempt, worker_id, worker, started_at)
    SELECT id, dispatch_no, attempt, worker_id, %(worker)s, started_at FROM taken
    ON CONFLICT (job_id, dispatch_no) DO NOTHING
)
SELECT l.state AS was_state, l.dispatch_no AS was_dispatch_no, m.now,
       l.limiter, l.partition,
       l.limiter IS NOT NULL AND (l.deadline_at IS NULL OR l.deadline_at > m.now) AS is_limited,
       t.id AS taken_id, t.task, t.queue, t.args::text AS args, t.meta, t.tags, t.attempt,
       t.max_attempts, t.timeout_seconds, t.deadline_at, t.created_at
FROM moment m CROSS JOIN locked l LEFT JOIN taken t ON t.id = l.id
