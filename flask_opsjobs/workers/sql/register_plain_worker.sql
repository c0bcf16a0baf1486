-- Finds a plain RQ worker by its name, or registers it. Returns its id. The call counts as a heartbeat, so a
-- worker that was missing becomes alive again.
-- Run by the work horse of a plain worker before it claims. Index: workers_name_key.
INSERT INTO opsjobs.workers AS w
    (name, kind, host, pid, queues, state, started_at, heartbeat_at)
VALUES (%(name)s, 'plain', %(host)s, %(pid)s, '{}', 'alive', %(now)s, %(now)s)
ON CONFLICT (name) DO UPDATE SET
    heartbeat_no = w.heartbeat_no + 1, heartbeat_at = excluded.heartbeat_at, state = 'alive', ended_at = NULL,
    forgotten_at = NULL
RETURNING w.id
