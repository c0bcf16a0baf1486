-- Tells whether a job is still in the attempt that asks; one that was rescued has another dispatch number.
-- The caller holds the run's lock.
-- Run by the job of a map. Index: jobs_pkey.
SELECT state = 'started' AND attempt = %(attempt)s AS is_current FROM opsjobs.jobs WHERE id = %(id)s
