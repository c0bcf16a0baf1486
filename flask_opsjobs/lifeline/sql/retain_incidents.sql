-- Removes incidents that were resolved before %(before)s, with their evidence, at most %(limit)s.
-- Run by the retain loop and by `flask opsjobs retain`. Index: incidents_to_retain.
WITH old AS MATERIALIZED (
    SELECT id FROM opsjobs.incidents WHERE resolved_at < %(before)s
    ORDER BY resolved_at LIMIT %(limit)s FOR UPDATE SKIP LOCKED
)
DELETE FROM opsjobs.incidents i USING old WHERE i.id = old.id
