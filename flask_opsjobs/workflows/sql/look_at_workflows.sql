-- Reads runs for the decision about an operator's action. Locks nothing.
-- Run by actions, first for the preview and again under the lock. Index: workflows_pkey.
SELECT id, name, state, steps, settled, ended_at, ended_by, end_no, cancel_requested_at, cancel_requested_by
FROM opsjobs.workflows WHERE id = ANY (%(ids)s::bigint[]) ORDER BY id
