-- Finds when any loop last made a pass, of passes before now; NULL when there was none. A loose index scan:
-- two probes for each loop's name. A pass that was recorded before the clock was stepped back is ignored.
-- Run by each worker after its heartbeat. Index: loop_runs_latest.
WITH RECURSIVE names (loop) AS (
    (SELECT loop FROM opsjobs.loop_runs ORDER BY loop LIMIT 1)
    UNION ALL
    SELECT (SELECT run.loop FROM opsjobs.loop_runs AS run
            WHERE run.loop > names.loop
            ORDER BY run.loop LIMIT 1)
    FROM names
    WHERE names.loop IS NOT NULL
)
SELECT max(latest.last_at) FROM names, LATERAL (
    SELECT run.last_at FROM opsjobs.loop_runs AS run
    WHERE run.loop = names.loop AND run.last_at <= %(now)s
    ORDER BY run.last_at DESC LIMIT 1
) AS latest
