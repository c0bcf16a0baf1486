-- Lists the steps that find_steps_to_reopen finds. One that is unique until it ends has the key of its unique
-- lock, and the job that holds the lock unexpired, null when it is free. Locks nothing.
-- LATERAL and OFFSET 0 read each step by its key, as in find_doomed_steps.
-- Rows: opsjobs, by their runs.
-- Run by actions, first for the preview and again under the lock. Indexes: edges_pkey, edges_by_target,
-- jobs_pkey, steps_pkey, unique_locks_pkey.
SELECT doomed.id, step.name, step.key, step.holder
FROM {find_steps_to_reopen.sql} AS doomed CROSS JOIN LATERAL (
    SELECT s.name, CASE WHEN j.unique_until = 'ended' THEN j.unique_key END AS key, u.job_id AS holder
    FROM opsjobs.jobs j
    JOIN opsjobs.steps s ON s.job_id = j.id
    LEFT JOIN opsjobs.unique_locks u ON u.key = j.unique_key AND j.unique_until = 'ended'
        AND (u.expires_at IS NULL OR u.expires_at > %(now)s)
    WHERE j.id = doomed.id OFFSET 0) AS step
ORDER BY doomed.id
