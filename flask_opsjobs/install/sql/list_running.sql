-- Lists the workers of ours and the processes of loops, on all machines, whose last heartbeat is younger than
-- %(late_seconds)s; the newest pass of a process of loops is its heartbeat. With a %(schema)s, workers are
-- left out whose code knows no newer one, as their heartbeats tell; loops do not tell it. Locks nothing.
-- Run by `flask opsjobs uninstall` and before a downgrade. Indexes: workers_alive, loop_runs_latest.
SELECT 'worker ' || a.name FROM {alive_workers.sql} AS a
WHERE a.kind = 'pool'
    AND (%(schema)s::int IS NULL OR (to_jsonb(a) #>> '{pool,schema}')::int > %(schema)s IS NOT FALSE)
UNION
SELECT 'the process ' || run.process || ' of the loops'
FROM {loop_names.sql} AS names
JOIN opsjobs.loop_runs AS run ON run.loop = names.loop
WHERE run.last_at > %(now)s::timestamptz - %(late_seconds)s::float8 * interval '1 s'
ORDER BY 1
