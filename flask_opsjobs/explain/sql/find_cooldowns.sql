-- Finds of each of these buckets the cooldown that lasts longest, its own or that of its limiter: when it was
-- decided, by whom and why. No row for a bucket without one. Locks nothing.
-- Run by explain/queries.py. Indexes: limiters_pkey, buckets_cooling.
SELECT n.limiter, n.partition, c.cooldown_at, c.cooldown_by, c.cooldown_reason, c.is_cooldown_of_all
FROM unnest(%(limiters)s::text[], %(partitions)s::text[]) AS n(limiter, partition)
CROSS JOIN LATERAL (
    SELECT cooldown_until, cooldown_at, cooldown_by, cooldown_reason, true AS is_cooldown_of_all
    FROM opsjobs.limiters
    WHERE name = n.limiter AND cooldown_until IS NOT NULL
    UNION ALL
    SELECT cooldown_until, cooldown_at, cooldown_by, cooldown_reason, false
    FROM opsjobs.buckets
    WHERE limiter = n.limiter AND partition = n.partition AND cooldown_until IS NOT NULL
    ORDER BY cooldown_until DESC, is_cooldown_of_all DESC LIMIT 1) AS c
