-- Lists those of these jobs that have a unique key but do not hold its lock. Locks nothing.
-- Rows: opsjobs, by their unique keys.
-- Run by actions after they took unique locks. Indexes: jobs_pkey, unique_locks_pkey.
SELECT j.id FROM opsjobs.jobs j
WHERE j.id = ANY (%(ids)s::bigint[]) AND j.unique_key IS NOT NULL
    AND NOT EXISTS (SELECT FROM opsjobs.unique_locks u WHERE u.key = j.unique_key AND u.job_id = j.id)
ORDER BY j.id
