-- Finds the living unique lock of a call, under any of its keys, and the state of the job that it stands for; the state
-- is null when that job's row is gone. No row: it was released, or has expired.
-- The unique locks of %(id)s do not count: while secret keys are rotated, a call that met another job under one key has
-- just taken its other key for that id, and records no job.
-- No lock. Run in the host's transaction after an insert that met it. Index: unique_locks_pkey, jobs_pkey.
SELECT u.job_id, j.state
FROM opsjobs.unique_locks u LEFT JOIN opsjobs.jobs j ON j.id = u.job_id
WHERE u.key = ANY (%(keys)s::bytea[]) AND (u.expires_at IS NULL OR u.expires_at > clock_timestamp())
    AND u.job_id IS DISTINCT FROM %(id)s::bigint
ORDER BY array_position(%(keys)s::bytea[], u.key) LIMIT 1
