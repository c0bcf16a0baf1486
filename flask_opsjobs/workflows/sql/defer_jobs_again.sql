-- Lets jobs of reopened steps wait again: those of waits, and of steps that were never released, so that
-- earlier attempts do not exist. Their deadlines begin with the release. Locks the jobs in id order. The
-- caller holds the run's lock.
-- Rows: opsjobs, by their runs.
-- Run by actions. Indexes: jobs_pkey, steps_pkey.
WITH locked AS MATERIALIZED (
    SELECT j.id FROM opsjobs.jobs j JOIN opsjobs.steps s ON s.job_id = j.id AND s.released_at IS NULL
    WHERE j.id = ANY (%(ids)s::bigint[]) AND j.state IN ('failed', 'canceled')
    ORDER BY j.id FOR UPDATE OF j
)
UPDATE opsjobs.jobs j SET state = 'deferred', ended_at = NULL, ended_by = NULL, ended_reason = NULL,
    deadline_at = NULL, cancel_requested_at = NULL, cancel_requested_by = NULL, cancel_reason = NULL
FROM locked l WHERE j.id = l.id
