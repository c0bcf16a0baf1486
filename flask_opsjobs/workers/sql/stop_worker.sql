-- Notes that a worker has left by itself.
-- Run by an OpsWorker as its last word. Index: workers_pkey.
UPDATE opsjobs.workers SET state = 'stopped', ended_at = %(now)s, reserved = '{}'
WHERE id = %(id)s AND state <> 'stopped'
