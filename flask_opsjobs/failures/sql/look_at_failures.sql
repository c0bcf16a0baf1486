-- Reads failures for the decision about an operator's action. Locks nothing.
-- Run by actions, first for the preview and again under the lock. Index: failures_pkey.
SELECT id, task, state, number, decided_at, decided_by, resolved_in, resolved_after, ignored_until,
    ignored_until_number, ignored_rate, regressed_at
FROM opsjobs.failures WHERE id = ANY (%(ids)s::bigint[]) ORDER BY id
