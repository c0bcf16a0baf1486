-- Reads incidents for the decision about an operator's action. Locks nothing.
-- Run by actions, first for the preview and again under the lock. Index: incidents_pkey.
SELECT id, class AS class_, subject, severity, state, episode, opened_at, seen_at, missed_passes, affected,
    facts, acknowledged_by, acknowledged_until
FROM opsjobs.incidents WHERE id = ANY (%(ids)s::bigint[]) ORDER BY id
