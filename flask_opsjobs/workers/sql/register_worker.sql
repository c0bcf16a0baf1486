-- Registers a worker. Returns its id. When the name exists, the observe loop has just recorded it as a plain
-- worker; its row is then taken over.
-- Run by a worker of ours when it starts. Index: workers_name_key.
INSERT INTO opsjobs.workers AS w
    (name, kind, host, pid, version, deploy_version, deploy_id, queues, processes, boot_id, pid_namespace,
        pid_started_at, state, started_at, heartbeat_at)
VALUES (%(name)s, %(kind)s, %(host)s, %(pid)s, %(version)s, %(deploy_version)s, %(deploy_id)s, %(queues)s,
    %(processes)s, %(boot_id)s, %(pid_namespace)s, %(pid_started_at)s, 'alive', %(now)s, %(now)s)
ON CONFLICT (name) DO UPDATE SET
    kind = excluded.kind, host = excluded.host, pid = excluded.pid, version = excluded.version,
    deploy_version = excluded.deploy_version, deploy_id = excluded.deploy_id,
    queues = excluded.queues, processes = excluded.processes, boot_id = excluded.boot_id,
    pid_namespace = excluded.pid_namespace, pid_started_at = excluded.pid_started_at,
    state = 'alive', started_at = excluded.started_at,
    heartbeat_no = 0, heartbeat_at = excluded.heartbeat_at, reserved = '{}', counts = '{}',
    left_children = '[]', pool = '{}', watched_heartbeat_no = -1, silent_seconds = 0, ended_at = NULL,
    drain_requested_at = NULL, drain_requested_by = NULL, forgotten_at = NULL
RETURNING w.id
