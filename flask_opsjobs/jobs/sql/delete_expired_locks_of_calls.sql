-- Deletes the expired unique locks of the gathered calls, so that these calls can take them. Locks them in
-- the order of their keys, so that two calls cannot deadlock.
-- Run in the host's transaction, in a savepoint, by `enqueue_many`. Index: unique_locks_pkey.
DELETE FROM opsjobs.unique_locks WHERE key IN (
    SELECT key FROM opsjobs.unique_locks
    WHERE key IN (SELECT decode(k.key, 'hex') FROM {calls} c, unnest(c.keys) AS k(key))
      AND expires_at <= clock_timestamp()
    ORDER BY key FOR UPDATE
)
