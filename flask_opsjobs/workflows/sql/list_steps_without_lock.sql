-- Lists the steps that did not get all their unique locks: the step's id, and the job that holds the lock
-- with its state. The job is null when its lock was released meanwhile; its state is null when its row was
-- deleted, or when it is a step of the same run, whose job is not written yet. Locks nothing.
-- Rows: opsjobs, by their unique keys.
-- Run in the host's transaction by `start`, after it took locks. Indexes: unique_locks_pkey, jobs_pkey.
SELECT wanted.id, u.job_id, j.state
FROM unnest(%(keys)s::bytea[], %(ids)s::bigint[]) AS wanted(key, id)
LEFT JOIN opsjobs.unique_locks u ON u.key = wanted.key LEFT JOIN opsjobs.jobs j ON j.id = u.job_id
WHERE u.job_id IS DISTINCT FROM wanted.id
ORDER BY wanted.id
