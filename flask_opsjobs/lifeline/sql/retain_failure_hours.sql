-- Removes at most %(limit)s hours of failures before %(before)s, oldest first.
-- Run by the retain loop and by `flask opsjobs retain`. Index: failure_hours_to_retain.
WITH old AS MATERIALIZED (
    SELECT failure_id, hour FROM opsjobs.failure_hours WHERE hour < %(before)s ORDER BY hour LIMIT %(limit)s
)
DELETE FROM opsjobs.failure_hours t USING old WHERE t.failure_id = old.failure_id AND t.hour = old.hour
