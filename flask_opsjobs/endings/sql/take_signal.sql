-- Ends a wait with a signal: the payload is its output. No row when another process has locked the signal or
-- the wait, or one of them is gone: then a later `advance` looks again.
-- `advance` takes early signals only, an operator any that no wait has taken.
-- The caller holds the run's lock.
-- Rows: opsjobs, by their runs.
-- Run by `advance`, and by the actions that signal a wait. Indexes: signals_pkey, jobs_pkey.
WITH signal AS MATERIALIZED (
    SELECT id, payload FROM opsjobs.signals
    WHERE id = %(signal)s AND outcome = ANY (%(outcomes)s::text[]) FOR UPDATE SKIP LOCKED
), wait AS MATERIALIZED (
    SELECT j.id FROM opsjobs.jobs j CROSS JOIN signal
    WHERE j.id = %(wait)s AND j.state = 'deferred' FOR UPDATE OF j SKIP LOCKED
), taken AS (
    UPDATE opsjobs.signals g SET outcome = 'taken', taken_by = w.id, taken_at = %(now)s
    FROM signal s CROSS JOIN wait w WHERE g.id = s.id
), moved AS (
    UPDATE opsjobs.jobs j SET state = 'finished', ended_at = %(now)s, ended_by = 'signaled'
    FROM wait w WHERE j.id = w.id
    RETURNING j.id, j.workflow_id, j.batch_id, j.state, j.ended_by, j.task, j.due_at, j.started_at,
        j.ended_at, NULL::bigint AS peak_kb
), kept AS (
    INSERT INTO opsjobs.outputs (job_id, value, size_bytes, omitted, created_at)
    SELECT w.id, s.payload, octet_length(coalesce(s.payload::text, '')), NULL, %(now)s
    FROM signal s CROSS JOIN wait w
), step_ends AS {append_workflow_end_events.sql},
    task_ends AS {append_task_ends.sql}
SELECT workflow_id, id, task, state, ended_by FROM moved
