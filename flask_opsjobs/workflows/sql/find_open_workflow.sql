-- Finds the open run of a name with this unique key. Locks nothing.
-- Run in the host's transaction by `start`, after an insert that met it. Index: workflows_open_key.
SELECT id, steps FROM opsjobs.workflows
WHERE name = %(name)s AND unique_key = %(unique_key)s AND ended_at IS NULL
