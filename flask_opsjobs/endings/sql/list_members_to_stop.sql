-- Lists members of a canceled batch that have not ended and whose workers were not asked to stop them.
-- The caller holds the batch's lock.
-- Rows: opsjobs, by their batches.
-- Run by `fold`. Index: jobs_open_of_batch.
SELECT id, state FROM opsjobs.jobs
WHERE batch_id = %(id)s AND ended_at IS NULL AND (state <> 'started' OR cancel_requested_at IS NULL)
ORDER BY id LIMIT %(limit)s
