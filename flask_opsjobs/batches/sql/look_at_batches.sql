-- Reads batches for the decision about an operator's action, with their counted ends. Locks nothing.
-- Run by actions, first for the preview and again under the lock. Indexes: batches_pkey, batch_ends_pkey.
SELECT b.id, b.name, b.state, b.enqueued, b.end_no, b.cancel_requested_at, b.cancel_requested_by,
    e.finished, e.failed, e.canceled
FROM opsjobs.batches b CROSS JOIN LATERAL (
    SELECT coalesce(sum(number) FILTER (WHERE state = 'finished'), 0)::bigint AS finished,
        coalesce(sum(number) FILTER (WHERE state = 'failed'), 0)::bigint AS failed,
        coalesce(sum(number) FILTER (WHERE state = 'canceled'), 0)::bigint AS canceled
    FROM opsjobs.batch_ends WHERE batch_id = b.id) AS e
WHERE b.id = ANY (%(ids)s::bigint[]) ORDER BY b.id
