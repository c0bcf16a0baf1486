-- Removes at most %(limit)s counts of limiters for minutes before %(before)s.
-- SKIP LOCKED: roll_up adds to that minute.
-- Run by the retain loop and by `flask opsjobs retain`. Index: limit_minutes_to_retain.
WITH old AS MATERIALIZED (
    SELECT limiter, minute FROM opsjobs.limit_minutes WHERE minute < %(before)s
    ORDER BY minute LIMIT %(limit)s FOR UPDATE SKIP LOCKED
)
DELETE FROM opsjobs.limit_minutes m USING old WHERE m.limiter = old.limiter AND m.minute = old.minute
