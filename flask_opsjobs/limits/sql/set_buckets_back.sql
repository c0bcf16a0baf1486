-- Sets `refilled_at` back to now for buckets whose `refilled_at` lies in the future, because a clock was
-- stepped back. Without this they would get no tokens until then. They keep the tokens that they have.
-- SKIP LOCKED: a claim has locked that bucket and writes the time itself.
-- Run by dispatch. Index: buckets_pkey.
WITH ahead AS MATERIALIZED (
    SELECT b.limiter, b.partition
    FROM opsjobs.buckets b JOIN unnest(%(limiters)s::text[], %(partitions)s::text[]) AS n(limiter, partition)
        ON b.limiter = n.limiter AND b.partition = n.partition
    WHERE b.refilled_at > clock_timestamp() FOR UPDATE OF b SKIP LOCKED
)
UPDATE opsjobs.buckets b SET refilled_at = clock_timestamp()
FROM ahead WHERE b.limiter = ahead.limiter AND b.partition = ahead.partition
