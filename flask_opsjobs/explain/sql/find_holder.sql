-- Finds the worker %(id)s, which has a job. `is_alive` is computed by listeners.sql. Locks nothing.
-- Run by explain/queries.py. Index: workers_pkey.
SELECT w.id, w.name, w.kind, w.heartbeat_at, w.reserved, l.id IS NOT NULL AS is_alive
FROM opsjobs.workers w
LEFT JOIN {listeners.sql} AS l ON l.id = w.id
WHERE w.id = %(id)s
