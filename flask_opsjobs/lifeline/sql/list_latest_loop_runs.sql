-- Lists the last stretch in which each loop ran, by name. A loose index scan: one probe for each loop's
-- name and one for its last row, however many stretches are stored. Locks nothing.
-- Run by lifeline/loop_runs.py. Index: loop_runs_latest.
WITH RECURSIVE names (loop) AS (
    (SELECT loop FROM opsjobs.loop_runs ORDER BY loop LIMIT 1)
    UNION ALL
    SELECT (SELECT run.loop FROM opsjobs.loop_runs AS run
            WHERE run.loop > names.loop
            ORDER BY run.loop LIMIT 1)
    FROM names
    WHERE names.loop IS NOT NULL
)
SELECT latest.*
FROM names, LATERAL (
    SELECT run.loop, run.process, run.started_at, run.last_at, run.every_seconds,
        run.took_seconds, run.report, run.error
    FROM opsjobs.loop_runs AS run
    WHERE run.loop = names.loop
    ORDER BY run.last_at DESC
    LIMIT 1
) AS latest
ORDER BY latest.loop
LIMIT 50
