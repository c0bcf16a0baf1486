-- Records that a worker has stopped.
-- Run by a worker of ours as its last statement. Index: workers_pkey.
UPDATE opsjobs.workers SET state = 'stopped', ended_at = %(now)s, reserved = '{}', pool = '{}'
WHERE id = %(id)s AND state <> 'stopped'
