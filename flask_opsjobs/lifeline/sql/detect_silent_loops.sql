-- Finds loops without a pass for three intervals, although the process that ran them is awake: another loop
-- of it has made a later pass. So a loop that a deploy has left out is not silent. The time of a pass under
-- way is granted: three times its last duration, and any time while it holds the advisory lock of its loop.
-- Run by the loop detect. Index: loop_runs_latest, by a loose scan as in list_latest_loop_runs.sql; the other
-- loops of a process are read from the same rows.
WITH RECURSIVE names (loop) AS (
    (SELECT loop FROM opsjobs.loop_runs ORDER BY loop LIMIT 1)
    UNION ALL
    SELECT (SELECT run.loop FROM opsjobs.loop_runs AS run
            WHERE run.loop > names.loop
            ORDER BY run.loop LIMIT 1)
    FROM names
    WHERE names.loop IS NOT NULL
), latest AS MATERIALIZED (
    SELECT run.*, run.last_at + (3 * (run.every_seconds + run.took_seconds) + %(grace_seconds)s)
        * interval '1 s' AS due_by
    FROM names, LATERAL (
        SELECT r.loop, r.process, r.last_at, r.every_seconds, r.took_seconds
        FROM opsjobs.loop_runs AS r
        WHERE r.loop = names.loop AND r.last_at <= %(now)s
        ORDER BY r.last_at DESC
        LIMIT 1
    ) AS run
)
SELECT silent.loop, silent.process, silent.last_at, silent.every_seconds
FROM latest AS silent
WHERE silent.due_by < %(now)s
    AND EXISTS (
        SELECT FROM latest AS other
        WHERE other.process = silent.process AND other.last_at > silent.due_by)
    AND NOT EXISTS (
        SELECT FROM pg_locks AS held,
            LATERAL (SELECT hashtextextended('opsjobs loop ' || silent.loop, 0) AS key) AS of_loop
        WHERE held.locktype = 'advisory' AND held.granted AND held.objsubid = 1
            AND held.database = (SELECT oid FROM pg_database WHERE datname = current_database())
            AND held.classid::bigint = of_loop.key >> 32 & 4294967295
            AND held.objid::bigint = of_loop.key & 4294967295)
ORDER BY silent.loop
LIMIT %(limit)s
