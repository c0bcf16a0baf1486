-- Lists those of these steps that are unique until they end, each with the key of its unique lock, and with
-- the job that holds the lock unexpired, null when it is free. Locks nothing.
-- Rows: opsjobs, by their unique keys.
-- Run by actions, first for the preview and again under the lock. Indexes: jobs_pkey, unique_locks_pkey,
-- steps_pkey.
SELECT j.id, s.name, j.unique_key AS key, u.job_id AS holder
FROM opsjobs.jobs j
JOIN opsjobs.steps s ON s.job_id = j.id
LEFT JOIN opsjobs.unique_locks u ON u.key = j.unique_key AND (u.expires_at IS NULL OR u.expires_at > %(now)s)
WHERE j.id = ANY (%(ids)s::bigint[]) AND j.unique_until = 'ended'
ORDER BY j.id
