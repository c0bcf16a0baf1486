-- Removes evidence that was last seen before %(before)s, also of incidents that live on, at most %(limit)s.
-- Run by the retain loop and by `flask opsjobs retain`. Index: evidence_to_retain.
WITH old AS MATERIALIZED (
    SELECT id FROM opsjobs.evidence WHERE last_at < %(before)s
    ORDER BY last_at LIMIT %(limit)s FOR UPDATE SKIP LOCKED
)
DELETE FROM opsjobs.evidence e USING old WHERE e.id = old.id
