-- Sets the cooldown of partitions until %(until)s: they start nothing; all four values NULL clear it. A
-- partition that was never used gets a row with a full bucket. Writes the rows in their order, so that it
-- cannot deadlock with a claim, which locks one bucket. The caller has locked the limiters.
-- Run by actions. Index: buckets_pkey.
INSERT INTO opsjobs.buckets AS b (limiter, partition, last_used_at,
    cooldown_at, cooldown_until, cooldown_by, cooldown_reason)
SELECT limiter, partition, %(now)s, %(at)s, %(until)s, %(actor)s, %(reason)s
FROM unnest(%(limiters)s::text[], %(partitions)s::text[]) AS n(limiter, partition) ORDER BY limiter, partition
ON CONFLICT (limiter, partition) DO UPDATE SET cooldown_at = excluded.cooldown_at,
    cooldown_until = excluded.cooldown_until, cooldown_by = excluded.cooldown_by,
    cooldown_reason = excluded.cooldown_reason
