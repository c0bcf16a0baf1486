-- Sums up a queue by hour since a moment: enqueued, finished, failed, canceled, and the most that were due at
-- once. An hour without any has no row. One probe of each key for each minute, however many queues there are.
-- Locks nothing.
-- Run by overview/pace_queries.py. Indexes: enqueue_counts_pkey, rollups_pkey, depths_pkey.
SELECT date_trunc('hour', minute.at) AS hour, coalesce(sum(e.enqueued), 0)::bigint AS enqueued,
    coalesce(sum(r.finished), 0)::bigint AS finished, coalesce(sum(r.failed), 0)::bigint AS failed,
    coalesce(sum(r.canceled), 0)::bigint AS canceled, max(d.due)::bigint AS most_due
FROM generate_series(
    date_trunc('minute', %(since)s::timestamptz), %(until)s::timestamptz, interval '1 minute'
) AS minute(at)
LEFT JOIN opsjobs.enqueue_counts e ON e.minute = minute.at AND e.queue = %(queue)s
LEFT JOIN opsjobs.rollups r ON r.minute = minute.at AND r.queue = %(queue)s
LEFT JOIN opsjobs.depths d ON d.minute = minute.at AND d.queue = %(queue)s
GROUP BY hour
HAVING count(e.queue) + count(r.queue) + count(d.queue) > 0
ORDER BY hour DESC
LIMIT 50
