-- Lists the minutes of a queue from %(start)s until before %(end)s for which something is kept: enqueued,
-- finished, failed, canceled, the histograms of waits and runs, the due jobs, and whether these are a lower
-- bound. One probe of each key for each minute, however many queues there are: with LIMIT 1, no plan reads
-- the rows of other queues or minutes. Locks nothing.
-- Run by overview/pace_queries.py. Indexes: enqueue_counts_pkey, rollups_pkey, depths_pkey.
SELECT each.at AS minute, e.enqueued, r.finished, r.failed, r.canceled, r.waits, r.runs,
    d.due, d.is_capped
FROM generate_series(
    %(start)s::timestamptz, %(end)s::timestamptz - interval '1 minute', interval '1 minute'
) AS each(at)
LEFT JOIN LATERAL (
    SELECT * FROM opsjobs.enqueue_counts WHERE minute = each.at AND queue = %(queue)s LIMIT 1
) AS e ON true
LEFT JOIN LATERAL (
    SELECT * FROM opsjobs.rollups WHERE minute = each.at AND queue = %(queue)s LIMIT 1
) AS r ON true
LEFT JOIN LATERAL (
    SELECT * FROM opsjobs.depths WHERE minute = each.at AND queue = %(queue)s LIMIT 1
) AS d ON true
WHERE e.queue IS NOT NULL OR r.queue IS NOT NULL OR d.queue IS NOT NULL
ORDER BY each.at
