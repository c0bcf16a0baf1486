-- Removes the stretches of loops that last ran before %(before)s, at most %(limit)s.
-- Run by the retain loop and by `flask opsjobs retain`. The table gets a few rows a day, and is read whole.
WITH old AS MATERIALIZED (
    SELECT id FROM opsjobs.loop_runs WHERE last_at < %(before)s
    LIMIT %(limit)s FOR UPDATE SKIP LOCKED
)
DELETE FROM opsjobs.loop_runs r USING old WHERE r.id = old.id
