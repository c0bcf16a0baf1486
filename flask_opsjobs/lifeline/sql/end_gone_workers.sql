-- Marks workers as missing whose process is known to be gone. Returns their names. A worker that has written
-- a heartbeat since %(heartbeat_nos)s was read is left alone: another process has its pid by now.
-- Run by the watch loop, for workers of its machine. Index: workers_pkey.
UPDATE opsjobs.workers w SET state = 'missing', ended_at = %(now)s
FROM unnest(%(ids)s::bigint[], %(heartbeat_nos)s::bigint[]) AS gone(id, heartbeat_no)
WHERE w.id = gone.id AND w.heartbeat_no = gone.heartbeat_no AND w.ended_at IS NULL
RETURNING w.id, w.name
