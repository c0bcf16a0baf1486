-- Removes at most %(limit)s buckets that were not used since %(before)s, are full again and do not cool down.
-- A bucket without a row counts as full and unused, so only the size of the table changes.
-- SKIP LOCKED: a claim uses that bucket. A claim that waits for the lock of a removed bucket inserts it
-- again. Uses no index: each claim writes last_used_at and would have to update the index too. The table has
-- one row for each partition that was used recently, and is read whole.
-- Run by the retain loop and by `flask opsjobs retain`.
WITH idle AS MATERIALIZED (
    SELECT b.limiter, b.partition FROM opsjobs.buckets b LEFT JOIN opsjobs.limiters l ON l.name = b.limiter
    WHERE b.last_used_at < %(before)s AND (b.cooldown_until IS NULL OR b.cooldown_until < %(now)s)
      AND (b.tokens IS NULL OR l.rate IS NULL
           OR b.tokens + extract(epoch FROM %(now)s::timestamptz - b.refilled_at) * l.rate / l.per_seconds
               >= l.burst)
    LIMIT %(limit)s FOR UPDATE OF b SKIP LOCKED
)
DELETE FROM opsjobs.buckets b USING idle WHERE b.limiter = idle.limiter AND b.partition = idle.partition
