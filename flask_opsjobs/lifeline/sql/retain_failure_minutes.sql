-- Removes at most %(limit)s minutes of failures before %(before)s, oldest first.
-- Run by the retain loop and by `flask opsjobs retain`. Index: failure_minutes_to_retain.
WITH old AS MATERIALIZED (
    SELECT failure_id, minute FROM opsjobs.failure_minutes WHERE minute < %(before)s
    ORDER BY minute LIMIT %(limit)s
)
DELETE FROM opsjobs.failure_minutes t USING old WHERE t.failure_id = old.failure_id AND t.minute = old.minute
