-- Counts deliveries that an RQ worker failed without running the job: the job becomes available again, and
-- fails at the %(limit)s-th. Returns the jobs. Without this count, a plain RQ worker that lacks the host's
-- code would take and fail the same job for ever. Locks in id order; fenced by the dispatch number.
-- Rows: opsjobs, by origin.
-- Run by the recall loop. Index: jobs_pkey.
WITH named AS MATERIALIZED (
    SELECT id, dispatch_no FROM unnest(%(ids)s::bigint[], %(dispatch_nos)s::bigint[]) AS n(id, dispatch_no)
), locked AS MATERIALIZED (
    SELECT j.id, j.failed_deliveries + 1 >= %(limit)s AS is_last FROM opsjobs.jobs j JOIN named n USING (id)
    WHERE j.state = 'queued' AND j.dispatch_no = n.dispatch_no AND j.reserved_by IS NULL
        AND j.origin = 'opsjobs'
    ORDER BY j.id FOR UPDATE OF j
), moved AS (
    UPDATE opsjobs.jobs j SET failed_deliveries = j.failed_deliveries + 1, dispatched_at = NULL,
        state = CASE WHEN l.is_last THEN 'failed' ELSE 'available' END,
        error = 'an RQ worker failed the delivery without running it',
        ended_at = CASE WHEN l.is_last THEN %(now)s::timestamptz END,
        ended_by = CASE WHEN l.is_last THEN 'undeliverable' END,
        ended_reason = CASE WHEN l.is_last THEN 'RQ workers failed its delivery ' || j.failed_deliveries + 1
            || ' times: do they import the host''s code?' END
    FROM locked l WHERE j.id = l.id
    RETURNING j.id, j.dispatch_no, j.state, j.ended_by, j.task, j.queue, j.lane,
        j.unique_key IS NOT NULL AS is_unique, j.limiter IS NOT NULL AS is_limited, j.cron_entry,
        j.workflow_id, j.batch_id, j.due_at, j.started_at, j.ended_at, NULL::bigint AS peak_kb
), step_ends AS {append_workflow_end_events.sql}, member_ends AS {append_batch_end_events.sql},
    task_ends AS {append_task_ends.sql}
SELECT id, dispatch_no, state, ended_by, task, queue, lane, is_unique, is_limited, cron_entry, workflow_id,
    batch_id
FROM moved
