-- Lists batches that can be folded: rows were appended for them, or they are closed and either canceled or
-- without an open member. The newest member is looked at first: entries of older ones may be dead.
-- Locks nothing.
-- Run by the fold loop and for a host's tests. Indexes: batch_end_events_by_batch, batches_by_state,
-- jobs_open_of_batch.
(SELECT DISTINCT batch_id FROM opsjobs.batch_end_events LIMIT %(limit)s)
UNION
(SELECT b.id FROM opsjobs.batches b
    WHERE b.state = 'running' AND (b.cancel_requested_at IS NOT NULL OR (
        SELECT j.id FROM opsjobs.jobs j WHERE j.batch_id = b.id AND j.ended_at IS NULL
        ORDER BY j.id DESC LIMIT 1) IS NULL)
    LIMIT %(limit)s)
LIMIT %(limit)s
