-- Ends steps as finished with a given result. Returns the jobs that it ended. Locks in id order. The caller
-- holds the run's lock, and has reopened the steps that had settled.
-- Rows: opsjobs, by their runs.
-- Run by actions, through `endings`. Index: jobs_pkey.
WITH locked AS MATERIALIZED (
    SELECT id FROM opsjobs.jobs
    WHERE id = ANY (%(ids)s::bigint[]) AND state = ANY (%(sources)s::text[]) ORDER BY id FOR UPDATE
), moved AS (
    UPDATE opsjobs.jobs j SET state = 'finished', ended_at = %(now)s, ended_by = 'skipped',
        ended_reason = %(reason)s, error = NULL
    FROM locked l WHERE j.id = l.id
    RETURNING j.id, j.dispatch_no, j.state, j.ended_by, j.task, j.queue, j.lane,
        j.unique_key IS NOT NULL AS is_unique, j.limiter IS NOT NULL AS is_limited, j.cron_entry,
        j.workflow_id, j.batch_id, j.due_at, j.started_at, j.ended_at, NULL::bigint AS peak_kb
), kept AS (
    INSERT INTO opsjobs.outputs (job_id, value, size_bytes, omitted, created_at)
    SELECT id, %(result)s::jsonb, octet_length(%(result)s::text), NULL, %(now)s FROM moved
    ON CONFLICT (job_id) DO UPDATE SET value = excluded.value, size_bytes = excluded.size_bytes,
        omitted = NULL, created_at = excluded.created_at
), step_ends AS {append_workflow_end_events.sql},
    task_ends AS {append_task_ends.sql}
SELECT id, dispatch_no, state, ended_by, task, queue, lane, is_unique, is_limited, cron_entry, workflow_id,
    batch_id
FROM moved
