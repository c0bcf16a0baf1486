-- Deletes the expired unique locks of these jobs' calls, also those that other jobs hold. Locks them in the
-- order of their keys, so that two transactions cannot deadlock.
-- Rows: opsjobs, by their unique keys.
-- Run by actions before they take unique locks. Indexes: jobs_pkey, unique_locks_pkey.
DELETE FROM opsjobs.unique_locks WHERE key IN (
    SELECT u.key FROM opsjobs.unique_locks u JOIN opsjobs.jobs j ON j.unique_key = u.key
    WHERE j.id = ANY (%(ids)s::bigint[]) AND u.expires_at <= %(now)s
    ORDER BY u.key FOR UPDATE OF u
)
