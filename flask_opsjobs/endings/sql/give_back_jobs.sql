-- Gives back jobs that a worker has reserved and not begun: they become available, without an attempt. A job
-- that somebody asked to cancel ends as canceled, and one whose deadline has passed as failed. Returns the
-- jobs. Fenced by the dispatch number and by the reservation. Locks in id order.
-- Rows: opsjobs, by their reservations.
-- Run by a worker's taker. Index: jobs_pkey.
WITH named AS MATERIALIZED (
    SELECT id, dispatch_no FROM unnest(%(ids)s::bigint[], %(dispatch_nos)s::bigint[]) AS n(id, dispatch_no)
), locked AS MATERIALIZED (
    SELECT j.id, j.cancel_reason,
        CASE WHEN j.cancel_requested_at IS NOT NULL THEN 'canceled'
            WHEN j.deadline_at <= %(now)s THEN 'failed' ELSE 'available' END AS next
    FROM opsjobs.jobs j JOIN named n USING (id)
    WHERE j.state = 'queued' AND j.dispatch_no = n.dispatch_no AND j.reserved_by = %(worker_id)s
    ORDER BY j.id FOR UPDATE OF j
), moved AS (
    UPDATE opsjobs.jobs j SET state = l.next, dispatched_at = NULL, reserved_by = NULL,
        ended_at = CASE WHEN l.next <> 'available' THEN %(now)s::timestamptz END,
        ended_by = CASE l.next WHEN 'canceled' THEN 'canceled' WHEN 'failed' THEN 'deadline' END,
        ended_reason = CASE l.next WHEN 'canceled' THEN l.cancel_reason
            WHEN 'failed' THEN 'its deadline passed before it started' END
    FROM locked l WHERE j.id = l.id
    RETURNING j.id, j.dispatch_no, j.state, j.ended_by, j.task, j.queue, j.lane,
        j.unique_key IS NOT NULL AS is_unique, j.limiter IS NOT NULL AS is_limited, j.cron_entry,
        j.workflow_id, j.batch_id, j.due_at, j.started_at, j.ended_at, NULL::bigint AS peak_kb
), step_ends AS {append_workflow_end_events.sql}, member_ends AS {append_batch_end_events.sql},
    task_ends AS {append_task_ends.sql}
SELECT id, dispatch_no, state, ended_by, task, queue, lane, is_unique, is_limited, cron_entry, workflow_id,
    batch_id
FROM moved
