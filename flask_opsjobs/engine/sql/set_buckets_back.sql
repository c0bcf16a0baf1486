-- Lets tokens come again to buckets that were filled at a time that is still to come: a clock was stepped back. What they
-- have stays. SKIP LOCKED: a claim uses it, and writes the time itself. Run by dispatch. Index: buckets_pkey.
WITH ahead AS MATERIALIZED (
    SELECT b.limiter, b.partition
    FROM opsjobs.buckets b JOIN unnest(%(limiters)s::text[], %(partitions)s::text[]) AS n(limiter, partition)
        ON b.limiter = n.limiter AND b.partition = n.partition
    WHERE b.refilled_at > clock_timestamp() FOR UPDATE OF b SKIP LOCKED
)
UPDATE opsjobs.buckets b SET refilled_at = clock_timestamp()
FROM ahead WHERE b.limiter = ahead.limiter AND b.partition = ahead.partition
