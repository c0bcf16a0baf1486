-- Finds the first of these steps whose unexpired unique lock another job holds, and that job; no row when
-- none. Only of steps that are unique until they end. Locks nothing.
-- Run by actions, first for the preview and again under the lock. Indexes: jobs_pkey, unique_locks_pkey,
-- steps_pkey.
SELECT s.name AS step, u.job_id AS holder
FROM opsjobs.jobs j
JOIN opsjobs.unique_locks u ON u.key = j.unique_key AND (u.expires_at IS NULL OR u.expires_at > %(now)s)
JOIN opsjobs.steps s ON s.job_id = j.id
WHERE j.id = ANY (%(ids)s::bigint[]) AND j.unique_until = 'ended' AND u.job_id <> j.id
ORDER BY j.id LIMIT 1
