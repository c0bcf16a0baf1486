-- Rescues jobs that their worker no longer runs; a job without attempts left fails. Returns the jobs.
-- %(exclude)s are the deliveries ("id-dispatch_no") that the worker has reserved. Only claims before
-- %(claimed_before)s are rescued, because the worker may have claimed a job while its heartbeat was on the
-- way. Only the jobs %(ids)s when these are given. Locks in id order before it writes. The attempt ends as
-- lost; a late outcome is rejected by the fence.
-- SKIP LOCKED: somebody writes that job right now, or stands still while writing. The next pass looks again.
-- A pass that waited would let all workers wait, because it has locked their rows.
-- Rows: opsjobs, by origin.
-- Run by the watch loop for missing workers, by a worker's own heartbeat, and by an operator's action.
-- Index: jobs_started.
WITH locked AS MATERIALIZED (
    SELECT id, dispatch_no, task, attempt < max_attempts AS has_more,
        cancel_requested_at IS NOT NULL AS is_cancel_wanted, cancel_reason
    FROM opsjobs.jobs
    WHERE state = 'started' AND worker_id = ANY (%(worker_ids)s::bigint[]) AND origin = 'opsjobs'
      AND started_at < %(claimed_before)s AND (%(ids)s::bigint[] IS NULL OR id = ANY (%(ids)s))
      AND NOT (id || '-' || dispatch_no) = ANY (%(exclude)s::text[])
    ORDER BY id LIMIT %(limit)s FOR UPDATE SKIP LOCKED
), judged AS MATERIALIZED (
    SELECT id, dispatch_no, task, cancel_reason,
        CASE WHEN is_cancel_wanted THEN 'canceled'
            WHEN has_more THEN 'available'
        ELSE 'failed' END AS next FROM locked
), closed AS (
    UPDATE opsjobs.attempts a SET ended_at = %(now)s, outcome = 'lost', error = %(cause)s,
        cause_of_death = %(cause)s, death = %(death)s,
        -- As `key_of_end` of jobs/failure_key.py makes it, with the number of its algorithm.
        failure_key = '\x01'::bytea || substr(sha256(convert_to(
            concat_ws(E'\n', d.task, 'end', 'lost', %(death)s::text), 'UTF8')), 1, 15)
    FROM judged d WHERE a.job_id = d.id AND a.dispatch_no = d.dispatch_no AND a.ended_at IS NULL
), moved AS (
    UPDATE opsjobs.jobs j SET state = d.next, worker_id = NULL, dispatched_at = NULL, error = %(cause)s,
        first_handed_back_at = NULL,
        ended_at = CASE WHEN d.next <> 'available' THEN %(now)s::timestamptz END,
        ended_by = CASE d.next WHEN 'failed' THEN 'exhausted' WHEN 'canceled' THEN 'canceled' END,
        ended_reason = CASE d.next WHEN 'canceled' THEN coalesce(d.cancel_reason, %(cause)s)
            WHEN 'failed' THEN %(cause)s END
    FROM judged d WHERE j.id = d.id
    RETURNING j.id, j.dispatch_no, j.state, j.ended_by, j.task, j.queue, j.lane,
        j.unique_key IS NOT NULL AS is_unique, j.limiter IS NOT NULL AS is_limited, j.cron_entry,
        j.workflow_id, j.batch_id, j.attempt AS lost_attempt, j.due_at, j.started_at,
        j.ended_at, NULL::bigint AS peak_kb
), step_ends AS {append_workflow_end_events.sql}, member_ends AS {append_batch_end_events.sql},
    task_ends AS {append_task_ends.sql}
SELECT id, dispatch_no, state, ended_by, task, queue, lane, is_unique, is_limited, cron_entry, workflow_id,
    batch_id, lost_attempt
FROM moved
