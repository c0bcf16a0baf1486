-- Removes previews that were made before %(before)s, at most %(limit)s, used or not: the audit holds what was
-- decided.
-- SKIP LOCKED: an operator executes that preview right now.
-- Run by the retain loop and by `flask opsjobs retain`. Index: previews_to_retain.
WITH old AS MATERIALIZED (
    SELECT id FROM opsjobs.previews WHERE created_at < %(before)s
    ORDER BY created_at LIMIT %(limit)s FOR UPDATE SKIP LOCKED
)
DELETE FROM opsjobs.previews p USING old WHERE p.id = old.id
