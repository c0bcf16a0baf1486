-- Finds the unexpired unique lock of a call under any of its keys. Returns the id and state of the job that
-- holds it; state is null when the row of that job was deleted. No row means that the lock was released or
-- has expired. Ignores the unique locks of %(id)s: while secret keys are rotated, a call that met another job
-- under one key has just taken its other key for %(id)s, and enqueues no job. Locks nothing.
-- Rows: opsjobs, by their unique keys.
-- Run in the host's transaction, after an insert that met a lock, or before one. Indexes: unique_locks_pkey,
-- jobs_pkey.
SELECT u.job_id, j.state
FROM opsjobs.unique_locks u LEFT JOIN opsjobs.jobs j ON j.id = u.job_id
WHERE u.key = ANY (%(keys)s::bytea[]) AND (u.expires_at IS NULL OR u.expires_at > clock_timestamp())
    AND u.job_id IS DISTINCT FROM %(id)s::bigint
ORDER BY array_position(%(keys)s::bytea[], u.key) LIMIT 1
