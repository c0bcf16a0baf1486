-- Lists those of these batches of which a member is being run now. Locks nothing.
-- Rows: opsjobs, by their batches.
-- Run by the pages of batches. Index: jobs_of_batch.
SELECT b.id FROM unnest(%(ids)s::bigint[]) AS b (id)
WHERE EXISTS (SELECT FROM opsjobs.jobs j WHERE j.batch_id = b.id AND j.state = 'started')
