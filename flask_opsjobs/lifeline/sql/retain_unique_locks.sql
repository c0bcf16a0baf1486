-- Removes unique locks that expired before %(before)s, at most %(limit)s. A unique lock that holds until its
-- job has ended, or for ever, has no expiry and is never removed here.
-- SKIP LOCKED: an enqueue takes over that expired unique lock right now.
-- Run by the retain loop and by `flask opsjobs retain`. Index: unique_locks_to_retain.
WITH old AS MATERIALIZED (
    SELECT key FROM opsjobs.unique_locks WHERE expires_at < %(before)s
    ORDER BY expires_at LIMIT %(limit)s FOR UPDATE SKIP LOCKED
)
DELETE FROM opsjobs.unique_locks u USING old WHERE u.key = old.key
