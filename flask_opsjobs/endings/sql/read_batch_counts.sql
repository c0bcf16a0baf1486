-- Reads the kept numbers of a batch: how many members it has, and how many of them ended in each state.
-- Run by `fold`, for a callback. Indexes: batches_pkey, batch_ends_pkey.
SELECT b.enqueued, b.lost, e.finished, e.failed, e.canceled
FROM opsjobs.batches b CROSS JOIN LATERAL (
    SELECT coalesce(sum(number) FILTER (WHERE state = 'finished'), 0)::bigint AS finished,
        coalesce(sum(number) FILTER (WHERE state = 'failed'), 0)::bigint AS failed,
        coalesce(sum(number) FILTER (WHERE state = 'canceled'), 0)::bigint AS canceled
    FROM opsjobs.batch_ends WHERE batch_id = b.id) AS e
WHERE b.id = %(id)s
