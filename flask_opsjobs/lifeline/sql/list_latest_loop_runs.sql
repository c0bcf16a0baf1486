-- Lists the last stretch in which each loop ran, by name, and whether it is running: a pass has been made
-- within three intervals. The time of a pass under way is granted: three times its last duration, and any
-- time while it holds the advisory lock of its loop. `due_by` is when the next pass was due at the latest. A
-- pass that was recorded before the clock was stepped back is ignored, but not one since %(now)s was read:
-- an older stretch would be taken for the last one. Locks nothing.
-- Run by lifeline/loop_runs.py, and as a part of detect_silent_loops.sql. Index: loop_runs_latest.
WITH held AS MATERIALIZED (
    SELECT classid::bigint << 32 | objid::bigint AS key FROM pg_locks
    WHERE locktype = 'advisory' AND granted AND objsubid = 1
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
)
SELECT latest.*, latest.due_by >= %(now)s OR EXISTS (
        SELECT FROM held WHERE key = hashtextextended('opsjobs loop ' || latest.loop, 0)) AS is_running
FROM {loop_names.sql} AS names, LATERAL (
    SELECT run.loop, run.process, run.started_at, run.last_at, run.every_seconds, run.took_seconds,
        run.report, run.error,
        run.last_at + (3 * (run.every_seconds + run.took_seconds) + %(grace_seconds)s) * interval '1 s'
            AS due_by
    FROM opsjobs.loop_runs AS run
    WHERE run.loop = names.loop AND run.last_at <= greatest(%(now)s, statement_timestamp())
    ORDER BY run.last_at DESC
    LIMIT 1
) AS latest
ORDER BY latest.loop
LIMIT 50
