-- Judges our workers by the number of their heartbeat: has it grown since the last pass, and if not, for
-- how long. Returns the workers whose state changed: id, name, was, state, heartbeat_at.
-- SKIP LOCKED: a worker whose row is locked is writing a heartbeat right now, so it is alive. Never judges by
-- the age of heartbeat_at, because clocks are stepped.
-- Run by the watch loop. Index: workers_alive.
WITH locked AS MATERIALIZED (
    SELECT id, state AS was,
        CASE WHEN heartbeat_no > watched_heartbeat_no THEN 0
            ELSE silent_seconds + %(elapsed)s::float8 END AS silent
    FROM opsjobs.workers
    WHERE ended_at IS NULL AND kind <> 'plain'
    ORDER BY id FOR UPDATE SKIP LOCKED
), judged AS MATERIALIZED (
    SELECT id, was, silent,
        CASE WHEN silent >= %(missing_seconds)s THEN 'missing'
            WHEN silent >= %(late_seconds)s THEN 'late' ELSE 'alive' END AS next
    FROM locked
), written AS (
    UPDATE opsjobs.workers w
    SET state = d.next, silent_seconds = d.silent, watched_heartbeat_no = w.heartbeat_no,
        ended_at = CASE WHEN d.next = 'missing' THEN %(now)s::timestamptz END
    FROM judged d WHERE w.id = d.id
    RETURNING w.id, w.name, d.was, w.state, w.heartbeat_at
)
SELECT id, name, was, state, heartbeat_at FROM written WHERE was <> state ORDER BY id
