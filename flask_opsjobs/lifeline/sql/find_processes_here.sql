-- Lists the workers of ours and the processes of loops on one machine, the newest heartbeat first: what
-- identifies the process, how old its last heartbeat is, and whether that is younger than %(late_seconds)s.
-- The newest pass of a process of loops is its heartbeat; one that made none for an hour is left out. With
-- %(name)s only the worker of that name, whose random end may be left out. The caller passes 'now' for
-- %(now)s, which Postgres reads as its own time. Locks nothing.
-- Run by `flask opsjobs alive`, as its only statement. Indexes: workers_by_start, loop_runs_latest.
SELECT found.kind, found.name, found.pid, found.boot_id, found.pid_namespace, found.pid_started_at,
    extract(epoch FROM %(now)s::timestamptz - found.heartbeat_at)::float8 AS age_seconds,
    found.has_ended, found.is_fresh
FROM (
    (SELECT 'worker' AS kind, w.name, w.pid, w.boot_id, w.pid_namespace, w.pid_started_at, w.heartbeat_at,
        w.ended_at IS NOT NULL AS has_ended, w.id IN (SELECT id FROM {alive_workers.sql} AS alive) AS is_fresh
    FROM opsjobs.workers AS w
    WHERE w.kind = 'pool' AND w.host = %(host)s
        AND w.boot_id IS NOT DISTINCT FROM %(boot_id)s
        AND w.pid_namespace IS NOT DISTINCT FROM %(pid_namespace)s
        AND (%(name)s::text IS NULL OR w.name = %(name)s OR starts_with(w.name, %(name)s || '-'))
    ORDER BY w.started_at DESC
    LIMIT 50)
    UNION ALL
    (SELECT 'loops', run.process, split_part(run.process, '-', -1)::integer, NULL, NULL, NULL,
        max(run.last_at), false,
        max(run.last_at) > %(now)s::timestamptz - %(late_seconds)s::float8 * interval '1 s'
    FROM {loop_names.sql} AS names
    JOIN opsjobs.loop_runs AS run ON run.loop = names.loop
    WHERE run.last_at > %(now)s::timestamptz - interval '1 hour'
        AND run.process = %(host)s || '-' || substring(run.process FROM '[0-9]{1,9}$')
    GROUP BY run.process
    LIMIT 50)
) AS found
ORDER BY found.heartbeat_at DESC
