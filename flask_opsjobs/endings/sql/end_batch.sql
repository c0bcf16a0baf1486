-- Ends a closed batch when as many members have ended as were added, and no end event is left. A batch that
-- lacks ends although none of its members is open has lost their rows: it ends too, as failed, and says how
-- many. To be lost is a failure, perhaps the first.
-- Returns what its callback tells; no row while a member is left.
-- Ends and their end events are committed together, so whoever sees neither an open member nor an end event
-- has counted all ends. The newest member is looked at first: entries of older ones may be dead.
-- The caller holds the batch's lock.
-- Rows: opsjobs, by their batches.
-- Run by `fold`. Indexes: batches_pkey, batch_ends_pkey, batch_end_events_by_batch, jobs_open_of_batch.
WITH ends AS MATERIALIZED (
    SELECT coalesce(sum(number), 0)::bigint AS number,
        coalesce(sum(number) FILTER (WHERE state = 'failed'), 0) > 0 AS has_failed
    FROM opsjobs.batch_ends WHERE batch_id = %(id)s
)
UPDATE opsjobs.batches b SET ended_at = %(now)s, end_no = b.end_no + 1,
    lost = greatest(b.enqueued - n.number, 0),
    first_failed_at = coalesce(b.first_failed_at, CASE
        WHEN b.cancel_requested_at IS NULL AND n.number < b.enqueued THEN %(now)s::timestamptz END),
    state = CASE WHEN b.cancel_requested_at IS NOT NULL THEN 'canceled'
        WHEN n.has_failed OR n.number < b.enqueued THEN 'failed' ELSE 'finished' END
FROM ends n
WHERE b.id = %(id)s AND b.state = 'running'
  AND NOT EXISTS (SELECT FROM opsjobs.batch_end_events WHERE batch_id = %(id)s)
  AND (b.enqueued = n.number OR (
    SELECT id FROM opsjobs.jobs WHERE batch_id = %(id)s AND ended_at IS NULL
    ORDER BY id DESC LIMIT 1) IS NULL)
RETURNING b.name, b.state, b.end_no, b.meta, b.on_end
