-- Lists the workers of one machine that have not ended: id, heartbeat number, and what identifies the
-- process. Locks nothing.
-- Run by the watch loop. Index: workers_alive.
SELECT id, heartbeat_no, pid, boot_id, pid_namespace, pid_started_at FROM opsjobs.workers
WHERE ended_at IS NULL AND kind <> 'plain' AND boot_id = %(boot_id)s AND pid_namespace = %(pid_namespace)s
