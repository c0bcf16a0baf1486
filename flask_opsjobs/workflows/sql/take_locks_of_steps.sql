-- Takes the unique locks of steps whose jobs are written next; an existing lock stays as it is. Inserts the
-- keys in order, and waits for calls that are being enqueued, as in enqueue_unique_job.
-- Run in the host's transaction, in a savepoint, by `start`. Index: unique_locks_pkey.
INSERT INTO opsjobs.unique_locks (key, job_id, until, expires_at, created_at)
SELECT key, id, until, %(now)s::timestamptz + within, %(now)s::timestamptz
FROM unnest(%(keys)s::bytea[], %(ids)s::bigint[], %(untils)s::text[], %(withins)s::interval[])
    AS wanted(key, id, until, within)
ORDER BY key
ON CONFLICT (key) DO NOTHING
