-- Notes that an executor has left by itself.
-- Run by an OpsWorker as its last word. Index: executors_pkey.
UPDATE opsjobs.executors SET state = 'stopped', ended_at = %(now)s, holding = '{}'
WHERE id = %(id)s AND state <> 'stopped'
