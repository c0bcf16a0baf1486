-- Takes back jobs that their workers had reserved and cannot begin any more. They had no attempt: they become
-- available, or end as canceled when somebody asked for that. Each counts the loss, so that it is taken alone
-- the next time: one that kills its worker then does not take others with it. Returns the jobs.
-- Only reservations from before %(reserved_before)s: a worker that is only silent may begin a younger one.
-- Only the jobs %(ids)s when these are given.
-- Locks in id order. SKIP LOCKED as in rescue_jobs.sql.
-- Rows: opsjobs, by their reservations.
-- Run by the watch loop for missing workers, by a worker that stops, and by an operator's action. Indexes:
-- jobs_queued or jobs_by_state, jobs_pkey.
WITH locked AS MATERIALIZED (
    SELECT id, cancel_reason, cancel_requested_at IS NOT NULL AS is_cancel_wanted
    FROM opsjobs.jobs
    WHERE state = 'queued' AND origin = 'opsjobs' AND reserved_by = ANY (%(worker_ids)s::bigint[])
        AND dispatched_at < %(reserved_before)s AND (%(ids)s::bigint[] IS NULL OR id = ANY (%(ids)s))
    ORDER BY id LIMIT %(limit)s FOR UPDATE SKIP LOCKED
), moved AS (
    UPDATE opsjobs.jobs j SET dispatched_at = NULL, reserved_by = NULL,
        lost_reservations = least(j.lost_reservations + 1, 1000),
        state = CASE WHEN l.is_cancel_wanted THEN 'canceled' ELSE 'available' END,
        ended_at = CASE WHEN l.is_cancel_wanted THEN %(now)s::timestamptz END,
        ended_by = CASE WHEN l.is_cancel_wanted THEN 'canceled' END,
        ended_reason = CASE WHEN l.is_cancel_wanted THEN l.cancel_reason END
    FROM locked l WHERE j.id = l.id
    RETURNING j.id, j.dispatch_no, j.state, j.ended_by, j.task, j.queue, j.lane,
        j.unique_key IS NOT NULL AS is_unique, j.limiter IS NOT NULL AS is_limited, j.cron_entry,
        j.workflow_id, j.batch_id, j.due_at, j.started_at, j.ended_at, NULL::bigint AS peak_kb
), step_ends AS {append_workflow_end_events.sql}, member_ends AS {append_batch_end_events.sql},
    task_ends AS {append_task_ends.sql}
SELECT id, dispatch_no, state, ended_by, task, queue, lane, is_unique, is_limited, cron_entry, workflow_id,
    batch_id
FROM moved
