-- How many jobs of each queue were recorded, ended and failed since a moment, by the minutes that were counted.
-- Returns counted_until, queue, born, ended, failed; one row with a NULL queue when nothing came or went. Locks nothing.
-- Run by queues/queries.py for the Queues page. Indexes: births_pkey, rollups_pkey.
WITH minutes (queue, born, ended, failed) AS (
    SELECT queue, born, 0, 0 FROM opsjobs.births WHERE minute >= %(since)s
    UNION ALL
    SELECT queue, 0, finished + failed + canceled, failed FROM opsjobs.rollups WHERE minute >= %(since)s
), summed AS (
    SELECT queue, sum(born)::bigint AS born, sum(ended)::bigint AS ended, sum(failed)::bigint AS failed
    FROM minutes GROUP BY queue
)
SELECT head.counted_until, summed.queue, summed.born, summed.ended, summed.failed
FROM opsjobs.rollup_head AS head LEFT JOIN summed ON true
WHERE head.id = 1
LIMIT 1000
