-- Lists the partitions with the most waiting jobs, at most %(limit)s, each with their number (counted up to
-- %(most)s). First counts roughly, up to %(rough)s, the jobs of the first %(walked)s partitions with waiting
-- jobs (a loose index scan, one probe each). Then counts the %(counted)s partitions with the largest numbers
-- up to %(most)s. `walked` is the number of partitions that were counted roughly. Locks nothing.
-- Rows: opsjobs, by their limiters.
-- Run by limits/queries.py. Index: jobs_limited.
WITH RECURSIVE names (partition) AS (
    (SELECT partition FROM opsjobs.jobs WHERE limiter = %(limiter)s AND state IN ('available', 'queued')
     ORDER BY partition LIMIT 1)
    UNION ALL
    SELECT (SELECT partition FROM opsjobs.jobs
        WHERE limiter = %(limiter)s AND state IN ('available', 'queued') AND partition > names.partition
        ORDER BY partition LIMIT 1)
    FROM names WHERE names.partition IS NOT NULL
), looked_at AS MATERIALIZED (SELECT partition FROM names WHERE partition IS NOT NULL LIMIT %(walked)s
), hottest AS MATERIALIZED (
    SELECT looked_at.partition, count(*) OVER () AS walked
    FROM looked_at CROSS JOIN LATERAL (
        SELECT count(*) AS number FROM (SELECT FROM opsjobs.jobs j
            WHERE j.limiter = %(limiter)s AND j.partition = looked_at.partition AND j.state = 'available'
            LIMIT %(rough)s) AS few
    ) AS roughly
    ORDER BY roughly.number DESC, looked_at.partition LIMIT %(counted)s
)
SELECT hottest.partition, counted.number AS waiting, hottest.walked
FROM hottest CROSS JOIN LATERAL (
    SELECT count(*) AS number FROM (SELECT FROM opsjobs.jobs j
        WHERE j.limiter = %(limiter)s AND j.partition = hottest.partition AND j.state = 'available'
        LIMIT %(most)s) AS few
) AS counted
ORDER BY counted.number DESC, hottest.partition LIMIT %(limit)s
