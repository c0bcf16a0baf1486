-- Lists batches that can be folded, at most %(limit)s after %(after)s, in id order: rows were appended for
-- them, or they are closed and either canceled or without an open member. Of the closed ones only the next
-- %(most)s after %(looked_after)s are looked at, the newest member of each first: entries of older ones may
-- be dead. Locks nothing.
-- Each step of the recursion reads the next batch from its index, because a batch may have many rows there.
-- Rows: opsjobs, by their batches.
-- Run by the fold loop and for a host's tests. Indexes: batch_end_events_by_batch, batches_by_state,
-- jobs_open_of_batch.
WITH RECURSIVE told (batch) AS (
    SELECT %(after)s::bigint
    UNION ALL
    SELECT (SELECT batch_id FROM opsjobs.batch_end_events
        WHERE batch_id > t.batch ORDER BY batch_id LIMIT 1)
    FROM told t WHERE t.batch IS NOT NULL
), closed AS MATERIALIZED (
    SELECT id, cancel_requested_at FROM opsjobs.batches
    WHERE state = 'running' AND id > %(looked_after)s ORDER BY id LIMIT %(most)s
)
(SELECT batch FROM told WHERE batch > %(after)s LIMIT %(limit)s)
UNION
(SELECT b.id FROM closed b
    WHERE b.id > %(after)s AND (b.cancel_requested_at IS NOT NULL OR (
        SELECT j.id FROM opsjobs.jobs j WHERE j.batch_id = b.id AND j.ended_at IS NULL
        ORDER BY j.id DESC LIMIT 1) IS NULL)
    ORDER BY b.id LIMIT %(limit)s)
ORDER BY batch LIMIT %(limit)s
