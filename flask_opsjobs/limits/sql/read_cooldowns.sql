-- Reads the cooldowns of limiters (partition NULL) and of partitions for the decision about an operator's
-- action. Leaves out limiters that no process has declared. Locks nothing.
-- Run by actions, first for the preview and again under the lock. Indexes: limiters_pkey, buckets_pkey.
SELECT n.limiter, n.partition, l.partition_by IS NOT NULL AS is_partitioned, c.*
FROM unnest(%(limiters)s::text[], %(partitions)s::text[]) AS n(limiter, partition)
JOIN opsjobs.limiters l ON l.name = n.limiter
LEFT JOIN opsjobs.buckets b ON b.limiter = n.limiter AND b.partition = n.partition
CROSS JOIN LATERAL (
    SELECT l.cooldown_at, l.cooldown_until, l.cooldown_by WHERE n.partition IS NULL
    UNION ALL
    SELECT b.cooldown_at, b.cooldown_until, b.cooldown_by WHERE n.partition IS NOT NULL
) AS c
ORDER BY n.limiter, n.partition
