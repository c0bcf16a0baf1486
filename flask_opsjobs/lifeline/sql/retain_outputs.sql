-- Removes the oldest outputs made before %(before)s, at most %(limit)s. Keeps their jobs.
-- Run by the retain loop and by `flask opsjobs retain`. Index: outputs_to_retain.
WITH old AS MATERIALIZED (
    SELECT job_id FROM opsjobs.outputs WHERE created_at < %(before)s
    ORDER BY created_at LIMIT %(limit)s FOR UPDATE SKIP LOCKED
)
DELETE FROM opsjobs.outputs o USING old WHERE o.job_id = old.job_id
