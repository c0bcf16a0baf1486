-- Ends waiting jobs by an operator's decision. Returns the jobs that it ended. Leaves reserved jobs
-- alone: only their worker ends them. Locks in id order, and checks the state again under the lock.
-- Rows: opsjobs, by origin.
-- Run by actions, through `endings`. Index: jobs_pkey.
WITH locked AS MATERIALIZED (
    SELECT id FROM opsjobs.jobs
    WHERE id = ANY (%(ids)s::bigint[]) AND state = ANY (%(sources)s::text[]) AND reserved_by IS NULL
        AND origin = 'opsjobs'
    ORDER BY id FOR UPDATE
), moved AS (
    UPDATE opsjobs.jobs j
    SET state = %(state)s, ended_at = %(now)s, ended_by = %(ended_by)s, ended_reason = %(reason)s
    FROM locked l WHERE j.id = l.id
    RETURNING j.id, j.dispatch_no, j.state, j.ended_by, j.task, j.queue, j.lane,
        j.unique_key IS NOT NULL AS is_unique, j.limiter IS NOT NULL AS is_limited, j.cron_entry,
        j.workflow_id, j.batch_id, j.due_at, j.started_at, j.ended_at, NULL::bigint AS peak_kb
), step_ends AS {append_workflow_end_events.sql}, member_ends AS {append_batch_end_events.sql},
    task_ends AS {append_task_ends.sql}
SELECT id, dispatch_no, state, ended_by, task, queue, lane, is_unique, is_limited, cron_entry, workflow_id,
    batch_id
FROM moved
