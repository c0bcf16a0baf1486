-- Deletes unique locks that were taken under one key for a call that then met another job's under its other key.
-- Run in the host's transaction, in a savepoint, by `enqueue_many` while secret keys are rotated. Index:
-- unique_locks_by_job.
DELETE FROM opsjobs.unique_locks u USING {calls} c
WHERE u.job_id = c.id AND NOT EXISTS (SELECT FROM opsjobs.jobs j WHERE j.id = c.id)
