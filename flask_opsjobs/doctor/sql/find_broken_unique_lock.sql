-- Finds a unique lock that its job should have released: the job has ended, or is gone. The same call then
-- enqueues nothing. Reads at most 5,000 locks.
-- Rows: opsjobs, by their unique keys.
-- Run by the doctor, read-only. Index: jobs_pkey.
SELECT l.job_id AS id, j.state
FROM (SELECT job_id, until FROM opsjobs.unique_locks LIMIT 5000) AS l
LEFT JOIN opsjobs.jobs j ON j.id = l.job_id
WHERE l.until = 'ended' AND (j.id IS NULL OR j.state IN ('finished', 'failed', 'canceled'))
ORDER BY l.job_id LIMIT 1
