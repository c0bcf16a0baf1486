-- Deletes the unique locks with these keys that have expired, and those taken for a job that was then not
-- enqueued. Locks them in the order of their keys, so that two calls cannot deadlock. If another call
-- replaces an expired lock at the same time, this statement waits, finds the old lock deleted, and the next
-- insert meets the new lock.
-- Run in the host's transaction by `enqueue`. Index: unique_locks_pkey.
DELETE FROM opsjobs.unique_locks WHERE key IN (
    SELECT key FROM opsjobs.unique_locks
    WHERE key = ANY (%(keys)s::bytea[]) AND (job_id = %(id)s OR expires_at <= clock_timestamp())
    ORDER BY key FOR UPDATE
)
