-- Deletes the receipts that live until their job ends. Locks them in the order of their keys, as enqueueing does.
-- Run by `endings`, in the transaction that ends the jobs. Index: receipts_by_job.
DELETE FROM opsjobs.receipts WHERE key IN (
    SELECT key FROM opsjobs.receipts
    WHERE job_id = ANY (%(job_ids)s::bigint[]) AND until = 'ended'
    ORDER BY key FOR UPDATE
)
