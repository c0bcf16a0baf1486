-- Removes buckets that were not used since %(before)s, are full again and do not cool down, at most %(limit)s: without its
-- row a bucket is full and unused, so nothing changes but the table's size.
-- SKIP LOCKED: a claim uses it. One that somebody waits to lock is made anew. No index: the time is written by each claim,
-- and an index on it would cost every one of them; the table has one row per partition used lately, and is read whole.
-- Run by the retain loop and by `flask opsjobs retain`.
WITH idle AS MATERIALIZED (
    SELECT b.limiter, b.partition FROM opsjobs.buckets b LEFT JOIN opsjobs.limiters l ON l.name = b.limiter
    WHERE b.last_used_at < %(before)s AND (b.cooldown_until IS NULL OR b.cooldown_until < %(now)s)
      AND (b.tokens IS NULL OR l.rate IS NULL
           OR b.tokens + extract(epoch FROM %(now)s::timestamptz - b.refilled_at) * l.rate / l.per_seconds >= l.burst)
    LIMIT %(limit)s FOR UPDATE OF b SKIP LOCKED
)
DELETE FROM opsjobs.buckets b USING idle WHERE b.limiter = idle.limiter AND b.partition = idle.partition
