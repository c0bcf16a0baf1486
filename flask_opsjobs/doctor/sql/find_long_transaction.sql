-- Finds the oldest transaction of this database that began more than %(longest)s seconds ago. Without the
-- right to read the activity of others, only those of the app's role are seen.
-- Run by the doctor, read-only.
SELECT pid, coalesce(nullif(application_name, ''), usename::text, 'unknown') AS name, state,
    extract(epoch FROM clock_timestamp() - xact_start)::float AS seconds
FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'
    AND xact_start < clock_timestamp() - make_interval(secs => %(longest)s)
ORDER BY xact_start LIMIT 1
