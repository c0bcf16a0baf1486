-- Counts the connections that are free for the app's role, by all limits, and what all our processes need:
-- two for each worker, one for each of its children, one for each loop that ran within a minute.
-- Run by the doctor, read-only. Indexes: workers_alive, loop_runs_latest.
WITH most AS (
    SELECT current_setting('max_connections')::int
            - current_setting('superuser_reserved_connections')::int
            - coalesce(current_setting('reserved_connections', true), '0')::int AS server,
        (SELECT nullif(rolconnlimit, -1) FROM pg_roles WHERE rolname = current_user) AS role,
        (SELECT nullif(datconnlimit, -1) FROM pg_database WHERE datname = current_database()) AS database
), used AS (
    SELECT count(*) AS server, count(*) FILTER (WHERE usename = current_user) AS role,
        count(*) FILTER (WHERE datname = current_database()) AS database
    FROM pg_stat_activity WHERE backend_type = 'client backend'
)
SELECT least(m.server - u.server, m.role - u.role, m.database - u.database) AS free, u.server AS used,
    current_setting('max_connections')::int AS most,
    (SELECT coalesce(sum(2 + processes), 0) FROM opsjobs.workers
     WHERE ended_at IS NULL AND kind = 'pool')::int AS of_workers,
    (SELECT count(*) FROM {loop_names.sql} AS names WHERE EXISTS (
        SELECT FROM opsjobs.loop_runs AS run
        WHERE run.loop = names.loop AND run.last_at > now() - interval '1 minute'))::int AS of_loops
FROM most AS m CROSS JOIN used AS u
