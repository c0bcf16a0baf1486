-- Finds the last registered worker that listened to a queue and has ended: its name and its last heartbeat.
-- The table is small: workers that ended are removed after a week. Locks nothing.
-- Run by explain/queries.py. Index: workers_by_start.
SELECT id, name, kind, heartbeat_at, reserved, false AS is_alive, true AS has_ended
FROM opsjobs.workers
WHERE ended_at IS NOT NULL AND %(queue)s = ANY (queues)
ORDER BY started_at DESC LIMIT 1
