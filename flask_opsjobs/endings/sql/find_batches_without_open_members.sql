-- Finds those of these batches that are closed and have no open member: they can end. The newest member is
-- looked at first: entries of older ones may be dead. Locks nothing.
-- Rows: opsjobs, by their batches.
-- Run by a worker's recorder after it ended members. Indexes: batches_pkey, jobs_open_of_batch.
SELECT b.id FROM opsjobs.batches b
WHERE b.id = ANY (%(ids)s::bigint[]) AND b.state = 'running' AND (
    SELECT j.id FROM opsjobs.jobs j WHERE j.batch_id = b.id AND j.ended_at IS NULL
    ORDER BY j.id DESC LIMIT 1) IS NULL
