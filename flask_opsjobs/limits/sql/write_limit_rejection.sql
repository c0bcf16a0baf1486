-- Stores the evidence of one call that a limiter rejected, and counts the call. Only appends.
-- Run after the host's transaction was committed or rolled back, on a connection of its own.
WITH counted AS (
    INSERT INTO opsjobs.limit_count_deltas (at, limiter, rejected) VALUES (%(at)s, %(limiter)s, 1)
)
INSERT INTO opsjobs.limit_rejections (at, limiter, partition, task, weight, code, read)
VALUES (%(at)s, %(limiter)s, %(partition)s, %(task)s, %(weight)s, %(code)s, %(read)s::jsonb)
