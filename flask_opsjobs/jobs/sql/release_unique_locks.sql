-- Deletes the unique locks that these jobs hold until they end. Locks them in the order of their keys, as
-- `enqueue` does.
-- Run by `endings`, in the transaction that ends the jobs. Index: unique_locks_by_job.
DELETE FROM opsjobs.unique_locks WHERE key IN (
    SELECT key FROM opsjobs.unique_locks
    WHERE job_id = ANY (%(job_ids)s::bigint[]) AND until = 'ended'
    ORDER BY key FOR UPDATE
)
