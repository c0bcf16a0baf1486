-- Deletes the expired receipts of these jobs' calls, whoever has them. Locks them in the order of their keys.
-- Run by the doorway before it takes receipts. Indexes: jobs_pkey, receipts_pkey.
DELETE FROM opsjobs.receipts WHERE key IN (
    SELECT r.key FROM opsjobs.receipts r JOIN opsjobs.jobs j ON j.unique_key = r.key
    WHERE j.id = ANY (%(ids)s::bigint[]) AND r.expires_at <= %(now)s
    ORDER BY r.key FOR UPDATE OF r
)
