-- Registers a worker. Returns its id. When the name exists, the observe loop has just recorded it as a plain
-- worker; its row is then taken over.
-- Run by an OpsWorker when it starts. Index: workers_name_key.
INSERT INTO opsjobs.workers AS w
    (name, kind, host, pid, version, queues, state, started_at, heartbeat_at)
VALUES (%(name)s, %(kind)s, %(host)s, %(pid)s, %(version)s, %(queues)s, 'alive', %(now)s, %(now)s)
ON CONFLICT (name) DO UPDATE SET
    kind = excluded.kind, host = excluded.host, pid = excluded.pid, version = excluded.version,
    queues = excluded.queues, state = 'alive', started_at = excluded.started_at, heartbeat_no = 0,
    heartbeat_at = excluded.heartbeat_at, reserved = '{}', counts = '{}',
    watched_heartbeat_no = -1, silent_seconds = 0, ended_at = NULL
RETURNING w.id
