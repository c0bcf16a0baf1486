-- Finds the workers %(ids)s, which have jobs. `is_alive` is computed by alive_workers.sql. Locks nothing.
-- Run by explain/queries.py. Index: workers_pkey.
SELECT w.id, w.name, w.kind, w.heartbeat_at, w.reserved, l.id IS NOT NULL AS is_alive,
    w.ended_at IS NOT NULL AS has_ended
FROM opsjobs.workers w
LEFT JOIN {alive_workers.sql} AS l ON l.id = w.id
WHERE w.id = ANY (%(ids)s::bigint[])
