-- Lists at most %(most)s limiters that have a rate and no partitions, by name, with the tokens of their
-- bucket at its last refill. Locks nothing.
-- Run by telemetry/queries.py. Indexes: limiters_pkey, buckets_pkey.
SELECT l.name, l.rate, l.per_seconds, l.burst, b.tokens, b.refilled_at
FROM opsjobs.limiters l LEFT JOIN opsjobs.buckets b ON b.limiter = l.name AND b.partition = ''
WHERE l.partition_by IS NULL AND l.rate IS NOT NULL
ORDER BY l.name LIMIT %(most)s
