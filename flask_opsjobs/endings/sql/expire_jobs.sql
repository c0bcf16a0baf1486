-- Ends waiting jobs whose deadline passed before they started. Returns them.
-- Leaves reserved jobs to their workers.
-- SKIP LOCKED: a locked job is checked again in the next pass.
-- Rows: opsjobs, by origin.
-- Run by the expire loop (ids NULL) and by a worker that got an overdue job (its id). Index: jobs_deadlines.
WITH locked AS MATERIALIZED (
    SELECT id FROM opsjobs.jobs
    WHERE deadline_at IS NOT NULL AND deadline_at <= %(now)s
      AND state IN ('deferred', 'scheduled', 'available', 'queued', 'retryable') AND reserved_by IS NULL
      AND origin = 'opsjobs'
      AND (%(ids)s::bigint[] IS NULL OR id = ANY (%(ids)s::bigint[]))
    ORDER BY id LIMIT %(limit)s FOR UPDATE SKIP LOCKED
), moved AS (
    UPDATE opsjobs.jobs j SET state = 'failed', ended_at = %(now)s, ended_by = 'deadline',
        ended_reason = 'its deadline passed before it started'
    FROM locked l WHERE j.id = l.id
    RETURNING j.id, j.dispatch_no, j.state, j.ended_by, j.task, j.queue, j.lane,
        j.unique_key IS NOT NULL AS is_unique, j.limiter IS NOT NULL AS is_limited, j.cron_entry,
        j.workflow_id, j.batch_id, j.due_at, j.started_at, j.ended_at, NULL::bigint AS peak_kb
), step_ends AS {append_workflow_end_events.sql}, member_ends AS {append_batch_end_events.sql},
    task_ends AS {append_task_ends.sql}
SELECT id, dispatch_no, state, ended_by, task, queue, lane, is_unique, is_limited, cron_entry, workflow_id,
    batch_id
FROM moved
