-- Removes the records of enqueues that a limiter rejected before %(before)s, at most %(limit)s.
-- Run by the retain loop and by `flask opsjobs retain`. Index: limit_rejections_to_retain.
WITH old AS MATERIALIZED (
    SELECT id FROM opsjobs.limit_rejections WHERE at < %(before)s
    ORDER BY at LIMIT %(limit)s FOR UPDATE SKIP LOCKED
)
DELETE FROM opsjobs.limit_rejections r USING old WHERE r.id = old.id
