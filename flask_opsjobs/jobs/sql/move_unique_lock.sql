-- Moves the unique lock of a job to the keys of another call; it lasts as long as before. Returns how many of
-- these keys it took: with fewer than all, another job holds the lock of that call, and the caller rolls
-- back.
-- Inserts the keys in order and waits for calls that are being enqueued, as in enqueue_unique_job. The caller
-- has locked the job.
-- Run by actions. Indexes: unique_locks_by_job, unique_locks_pkey.
WITH held AS MATERIALIZED (
    SELECT key, until, expires_at, created_at FROM opsjobs.unique_locks
    WHERE job_id = %(id)s ORDER BY key FOR UPDATE
), taken AS (
    INSERT INTO opsjobs.unique_locks (key, job_id, until, expires_at, created_at)
    SELECT n.key, %(id)s, h.until, h.expires_at, h.created_at
    FROM unnest(%(keys)s::bytea[]) AS n(key), (SELECT * FROM held LIMIT 1) AS h
    ORDER BY n.key
    ON CONFLICT (key) DO NOTHING
    RETURNING key
), released AS (
    DELETE FROM opsjobs.unique_locks WHERE key IN (SELECT key FROM held)
)
SELECT count(*) FROM taken
