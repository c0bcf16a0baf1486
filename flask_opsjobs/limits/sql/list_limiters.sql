-- Limiters as they were declared last, the one named %(name)s or all (NULL), at most %(limit)s, with what pages say of
-- each: jobs that wait and that are dispatched (broken off at %(most)s), leases, partitions that cool down, and what
-- the minutes since %(since)s count. Locks nothing.
-- Run by limits/page_queries.py. Indexes: limiters_pkey, jobs_limited, leases_by_bucket, buckets_cooling, limit_minutes_pkey.
SELECT l.*,
    (SELECT count(*) FROM (SELECT FROM opsjobs.jobs j WHERE j.limiter = l.name AND j.state = 'available'
        LIMIT %(most)s) AS few) AS waiting,
    (SELECT count(*) FROM (SELECT FROM opsjobs.jobs j WHERE j.limiter = l.name AND j.state = 'queued'
        LIMIT %(most)s) AS few) AS queued,
    (SELECT count(*) FROM (SELECT FROM opsjobs.leases x WHERE x.limiter = l.name LIMIT %(most)s) AS few) AS holders,
    (SELECT count(*) FROM (SELECT FROM opsjobs.buckets b WHERE b.limiter = l.name AND b.cooldown_until > %(now)s
        LIMIT %(most)s) AS few) AS cooling,
    counted.*
FROM (SELECT * FROM opsjobs.limiters WHERE %(name)s::text IS NULL OR name = %(name)s ORDER BY name LIMIT %(limit)s) AS l
CROSS JOIN LATERAL (
    SELECT coalesce(sum(admitted), 0)::bigint AS admitted, coalesce(sum(returned), 0)::bigint AS returned,
        coalesce(sum(rejected), 0)::bigint AS rejected
    FROM opsjobs.limit_minutes m WHERE m.limiter = l.name AND m.minute >= %(since)s
) AS counted
ORDER BY l.name
