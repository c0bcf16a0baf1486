-- Removes the oldest outputs made before %(before)s, at most %(limit)s. Keeps their jobs. An output of a step
-- stays until its run has ended: a step that still waits may need it. A subquery per output, because a join
-- would read all steps of open runs.
-- Rows: both.
-- Run by the retain loop and by `flask opsjobs retain`. Indexes: outputs_to_retain, jobs_pkey.
WITH old AS MATERIALIZED (
    SELECT job_id FROM opsjobs.outputs o WHERE created_at < %(before)s AND (
        SELECT w.ended_at IS NULL FROM opsjobs.jobs j JOIN opsjobs.workflows w ON w.id = j.workflow_id
        WHERE j.id = o.job_id) IS NOT TRUE
    ORDER BY created_at LIMIT %(limit)s FOR UPDATE SKIP LOCKED
)
DELETE FROM opsjobs.outputs o USING old WHERE o.job_id = old.job_id
