-- Lists those of these jobs that hold a unique lock until they end. Locks nothing.
-- Rows: opsjobs, by their unique keys.
-- Run by actions. Index: jobs_pkey.
SELECT id FROM opsjobs.jobs WHERE id = ANY (%(ids)s::bigint[]) AND unique_until = 'ended' ORDER BY id
