-- The partitions of a limiter for which most jobs wait, at most %(limit)s, each with how many (broken off at %(most)s), of
-- its first %(walked)s partitions with waiting jobs: a loose scan, one probe each. `walked` is how many it looked at.
-- Locks nothing.
-- Run by limits/page_queries.py. Index: jobs_limited.
WITH RECURSIVE names (partition) AS (
    (SELECT partition FROM opsjobs.jobs WHERE limiter = %(limiter)s AND state IN ('available', 'queued')
     ORDER BY partition LIMIT 1)
    UNION ALL
    SELECT (SELECT partition FROM opsjobs.jobs
        WHERE limiter = %(limiter)s AND state IN ('available', 'queued') AND partition > names.partition
        ORDER BY partition LIMIT 1)
    FROM names WHERE names.partition IS NOT NULL
), looked_at AS MATERIALIZED (SELECT partition FROM names WHERE partition IS NOT NULL LIMIT %(walked)s)
SELECT looked_at.partition, counted.number AS waiting, count(*) OVER () AS walked
FROM looked_at CROSS JOIN LATERAL (
    SELECT count(*) AS number FROM (SELECT FROM opsjobs.jobs j
        WHERE j.limiter = %(limiter)s AND j.partition = looked_at.partition AND j.state = 'available'
        LIMIT %(most)s) AS few
) AS counted
ORDER BY counted.number DESC, looked_at.partition LIMIT %(limit)s
