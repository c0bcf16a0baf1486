-- Takes workers that have ended from all pages. Their rows stay, so that a heartbeat shows them again. The
-- caller has locked the rows.
-- Run by actions. Index: workers_pkey.
UPDATE opsjobs.workers SET forgotten_at = %(now)s
WHERE id = ANY (%(ids)s::bigint[]) AND ended_at IS NOT NULL
