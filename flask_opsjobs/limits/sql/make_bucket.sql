-- Inserts the row of a bucket that is used for the first time. When another transaction has just inserted it,
-- waits for that commit.
-- Run by the claim of a limited job, which locks the row next. Index: buckets_pkey.
INSERT INTO opsjobs.buckets (limiter, partition, last_used_at)
VALUES (%(limiter)s, %(partition)s, clock_timestamp()) ON CONFLICT (limiter, partition) DO NOTHING
