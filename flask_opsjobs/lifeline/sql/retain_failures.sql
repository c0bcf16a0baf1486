-- Removes failures that happened last before %(before)s, at most %(limit)s, oldest first. Their minutes,
-- hours and deploys go with them.
-- Run by the retain loop and by `flask opsjobs retain`. Index: failures_to_retain.
WITH old AS MATERIALIZED (
    SELECT id FROM opsjobs.failures WHERE last_at < %(before)s
    ORDER BY last_at LIMIT %(limit)s FOR UPDATE SKIP LOCKED
)
DELETE FROM opsjobs.failures f USING old WHERE f.id = old.id
