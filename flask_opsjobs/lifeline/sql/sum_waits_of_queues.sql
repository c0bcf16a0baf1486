-- Adds up how long the jobs of queues waited from due to start, within a day: the histogram of each queue by
-- its buckets.
-- Run by the loop detect for the queues of lanes that may starve. Index: rollups_pkey, one
-- probe for each minute.
SELECT wanted.queue, bucket.number - 1 AS bucket, sum(bucket.count) AS count
FROM unnest(%(queues)s::text[]) AS wanted(queue)
CROSS JOIN generate_series(date_trunc('minute', %(now)s::timestamptz) - interval '1 day',
    date_trunc('minute', %(now)s::timestamptz), interval '1 min') AS of(minute)
CROSS JOIN LATERAL (
    SELECT waits FROM opsjobs.rollups r WHERE r.minute = of.minute AND r.queue = wanted.queue OFFSET 0
) AS r
CROSS JOIN LATERAL unnest(r.waits) WITH ORDINALITY AS bucket(count, number)
GROUP BY wanted.queue, bucket.number
ORDER BY wanted.queue, bucket.number
