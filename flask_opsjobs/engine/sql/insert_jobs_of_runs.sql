-- Inserts the rows of plain RQ jobs that a worker of ours ran and that have none yet. RQ may delete such a
-- job at once, so nobody else may ever see it. A row that the adopt loop has made is left alone.
-- Rows: rq, which it inserts.
-- Run by the recorder of a worker, before `record_runs_of_plain_jobs`. Index: jobs_of_rq.
WITH runs AS MATERIALIZED (
    SELECT * FROM json_to_recordset(%(rows)s) AS r (rq_id text, queue text, function text,
        created_at timestamptz, enqueued_at timestamptz, started_at timestamptz,
        timeout_seconds double precision, arguments text)
), new AS (
    INSERT INTO opsjobs.jobs AS j (origin, rq_place, rq_id, rq_created_at, task, queue, lane, state, args,
        max_attempts, timeout_seconds, created_at, due_at, dispatched_at, started_at, rq_status)
    SELECT 'rq', %(place)s, rq_id, created_at, function, queue, queue, 'started', '{}', 1,
        CASE WHEN timeout_seconds >= 1 THEN least(timeout_seconds, 2147483647)::integer END, created_at,
        coalesce(enqueued_at, created_at), enqueued_at, started_at, 'started'
    FROM runs ORDER BY created_at, rq_id
    ON CONFLICT (rq_place, rq_id, rq_created_at) WHERE origin = 'rq' DO NOTHING
    RETURNING j.id, j.rq_id, j.rq_created_at, j.dispatched_at
), views AS (
    INSERT INTO opsjobs.rq_views (job_id, function, arguments)
    SELECT new.id, runs.function, runs.arguments
    FROM new JOIN runs ON runs.rq_id = new.rq_id AND runs.created_at = new.rq_created_at
    WHERE runs.arguments IS NOT NULL
)
INSERT INTO opsjobs.rq_facts (job_id, created_source, dispatched_source, started_source, changed_at)
SELECT id, 'rq', CASE WHEN dispatched_at IS NOT NULL THEN 'rq' END, 'worker', clock_timestamp() FROM new
