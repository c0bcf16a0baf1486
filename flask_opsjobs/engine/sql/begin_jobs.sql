-- Writes that reserved jobs have begun: `started`, each with its attempt. Returns (id, dispatch number) of
-- those that are `started` now, also of those that were claimed before: their attempts only learn the
-- process. A job that is left out has ended already, or is no longer the worker's.
-- With %(is_durable)s the commit is synchronous: such a job is sent only after it, because it may end the
-- machine. Without, a crash of Postgres may forget the start of a job that runs; its outcome is accepted.
-- Rows: opsjobs, by origin.
-- Run by a worker's taker, for jobs that run for more than a moment. Index: jobs_pkey.
WITH hurried AS MATERIALIZED (
    SELECT set_config('synchronous_commit', CASE WHEN %(is_durable)s THEN 'on' ELSE 'off' END, true)
), moment AS MATERIALIZED (
    SELECT clock_timestamp() AS now FROM hurried
), begun AS MATERIALIZED (
    SELECT b.id, b.dispatch_no, b.pid, m.now - b.ago * interval '1 s' AS began_at FROM moment m,
        unnest(%(ids)s::bigint[], %(dispatch_nos)s::bigint[], %(ago)s::float8[], %(pids)s::int[])
            AS b(id, dispatch_no, ago, pid)
), locked AS MATERIALIZED (
    SELECT j.id, j.dispatch_no, j.state, b.began_at, b.pid FROM opsjobs.jobs j JOIN begun b USING (id)
    WHERE j.dispatch_no = b.dispatch_no AND j.origin = 'opsjobs'
        AND (j.state = 'queued' AND j.reserved_by = %(worker_id)s
            OR j.state = 'started' AND j.worker_id = %(worker_id)s)
    ORDER BY j.id FOR UPDATE OF j
), moved AS (
    UPDATE opsjobs.jobs j SET state = 'started', attempt = j.attempt + 1, started_at = l.began_at,
        worker_id = %(worker_id)s, reserved_by = NULL, failed_deliveries = 0, error = NULL
    FROM locked l WHERE j.id = l.id AND l.state = 'queued'
    RETURNING j.id, j.dispatch_no, j.attempt, j.started_at, l.pid
), told AS (
    UPDATE opsjobs.attempts a SET pid = l.pid FROM locked l
    WHERE a.job_id = l.id AND a.dispatch_no = l.dispatch_no AND l.state = 'started'
), noted AS (
    INSERT INTO opsjobs.attempts (job_id, dispatch_no, attempt, worker_id, worker, started_at, pid)
    SELECT id, dispatch_no, attempt, %(worker_id)s, %(worker)s, started_at, pid FROM moved
    ON CONFLICT (job_id, dispatch_no) DO NOTHING
)
SELECT id, dispatch_no FROM locked
