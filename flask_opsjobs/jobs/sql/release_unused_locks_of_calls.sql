-- Deletes unique locks of calls that became no job: a call took one key, and another job holds its other key.
-- Rows: opsjobs, by their unique keys.
-- Run in the host's transaction, in a savepoint, by `enqueue_many` while secret keys are rotated. Index:
-- unique_locks_by_job.
DELETE FROM opsjobs.unique_locks u USING {calls} c
WHERE u.job_id = c.id AND NOT EXISTS (SELECT FROM opsjobs.jobs j WHERE j.id = c.id)
