-- Finds a job that should have been deleted a day ago: its state, and when it ended. One probe for
-- each state.
-- Rows: both.
-- Run by the doctor, read-only. Index: jobs_alone_to_retain.
SELECT limits.state, oldest.ended_at
FROM unnest(%(states)s::text[], %(before)s::timestamptz[]) AS limits (state, before), LATERAL (
    SELECT ended_at FROM opsjobs.jobs j
    WHERE j.state = limits.state AND j.ended_at < limits.before - interval '1 day'
        AND j.workflow_id IS NULL AND j.batch_id IS NULL
    ORDER BY j.ended_at LIMIT 1
) AS oldest
ORDER BY oldest.ended_at LIMIT 1
