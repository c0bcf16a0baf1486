-- Asks workers to leave: each reads the request with its next heartbeat. The caller has locked the rows.
-- Run by actions. Index: workers_pkey.
UPDATE opsjobs.workers SET drain_requested_at = %(now)s, drain_requested_by = %(actor)s
WHERE id = ANY (%(ids)s::bigint[]) AND ended_at IS NULL
