-- Lists limiters with their last declaration: the one named %(name)s, or all (NULL), at most %(limit)s.
-- Counts for each its waiting jobs, queued jobs, leases and cooling partitions (each up to %(most)s), and
-- sums up the counts per minute since %(since)s. Locks nothing.
-- Rows: opsjobs, by their limiters.
-- Run by limits/queries.py. Indexes: limiters_pkey, jobs_limited, leases_by_bucket, buckets_cooling,
-- limit_minutes_pkey.
SELECT l.*,
    (SELECT count(*) FROM (SELECT FROM opsjobs.jobs j WHERE j.limiter = l.name AND j.state = 'available'
        LIMIT %(most)s) AS few) AS waiting,
    (SELECT count(*) FROM (SELECT FROM opsjobs.jobs j WHERE j.limiter = l.name AND j.state = 'queued'
        LIMIT %(most)s) AS few) AS queued,
    (SELECT count(*) FROM (SELECT FROM opsjobs.leases x WHERE x.limiter = l.name
        LIMIT %(most)s) AS few) AS holders,
    (SELECT count(*) FROM (SELECT FROM opsjobs.buckets b WHERE b.limiter = l.name
        AND b.cooldown_until > %(now)s
        LIMIT %(most)s) AS few) AS cooling,
    counted.*
FROM (
    SELECT * FROM opsjobs.limiters
    WHERE %(name)s::text IS NULL OR name = %(name)s
    ORDER BY name LIMIT %(limit)s
) AS l
CROSS JOIN LATERAL (
    SELECT coalesce(sum(admitted), 0)::bigint AS admitted, coalesce(sum(recalled), 0)::bigint AS recalled,
        coalesce(sum(rejected), 0)::bigint AS rejected
    FROM opsjobs.limit_minutes m WHERE m.limiter = l.name AND m.minute >= %(since)s
) AS counted
ORDER BY l.name
