-- Finds the batch of a job; no row when the job is no member of one. Locks nothing.
-- Rows: opsjobs, by their batches.
-- Run in the process that performs the job, when its function asks. Indexes: jobs_pkey, batches_pkey.
SELECT b.id, b.name, b.meta
FROM opsjobs.jobs j JOIN opsjobs.batches b ON b.id = j.batch_id
WHERE j.id = %(id)s
