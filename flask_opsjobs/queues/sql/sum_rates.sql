-- Sums up how many jobs of each queue were enqueued, ended and failed since a moment, from the counts per
-- minute. Returns counted_until, queue, enqueued, ended, failed; one row with a NULL queue when nothing was
-- counted. Locks nothing.
-- Run by queues/queries.py for the Queues page. Indexes: enqueue_counts_pkey, rollups_pkey.
WITH minutes (queue, enqueued, ended, failed) AS (
    SELECT queue, enqueued, 0, 0 FROM opsjobs.enqueue_counts WHERE minute >= %(since)s
    UNION ALL
    SELECT queue, 0, finished + failed + canceled, failed FROM opsjobs.rollups WHERE minute >= %(since)s
), summed AS (
    SELECT queue, sum(enqueued)::bigint AS enqueued, sum(ended)::bigint AS ended,
        sum(failed)::bigint AS failed
    FROM minutes GROUP BY queue
)
SELECT pos.counted_until, summed.queue, summed.enqueued, summed.ended, summed.failed
FROM opsjobs.rollup_position AS pos LEFT JOIN summed ON true
WHERE pos.id = 1
LIMIT 5000
