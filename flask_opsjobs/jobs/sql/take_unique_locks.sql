-- Takes the unique locks of jobs that have a unique key; an existing lock stays as it is. `lifetime` is how
-- long each lock lasts, or null. Inserts the keys in order and waits for calls that are being enqueued, as
-- in enqueue_unique_job.
-- Rows: opsjobs, by their unique keys.
-- Run by actions, after the jobs were locked or enqueued in the same transaction. Indexes: jobs_pkey,
-- unique_locks_pkey.
INSERT INTO opsjobs.unique_locks (key, job_id, until, expires_at, created_at)
SELECT j.unique_key, j.id, j.unique_until, %(now)s::timestamptz + n.lifetime, %(now)s
FROM unnest(%(ids)s::bigint[], %(lifetimes)s::interval[]) AS n(id, lifetime)
JOIN opsjobs.jobs j USING (id)
WHERE j.unique_key IS NOT NULL
ORDER BY j.unique_key
ON CONFLICT (key) DO NOTHING
