-- Removes what limiters counted in minutes before %(before)s, at most %(limit)s.
-- SKIP LOCKED: roll_up adds to it. Run by the retain loop and by `flask opsjobs retain`. Index: limit_minutes_to_retain.
WITH old AS MATERIALIZED (
    SELECT limiter, minute FROM opsjobs.limit_minutes WHERE minute < %(before)s
    ORDER BY minute LIMIT %(limit)s FOR UPDATE SKIP LOCKED
)
DELETE FROM opsjobs.limit_minutes m USING old WHERE m.limiter = old.limiter AND m.minute = old.minute
