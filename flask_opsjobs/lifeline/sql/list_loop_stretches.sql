-- Lists the stretches of each loop that reached %(since)s, the newest first, at most 200 of each. A loose
-- index scan finds the names, one probe each. Locks nothing.
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
SELECT names.loop, stretch.started_at, stretch.last_at
FROM (SELECT loop FROM names WHERE loop IS NOT NULL LIMIT 50) AS names, LATERAL (
    SELECT run.started_at, run.last_at
    FROM opsjobs.loop_runs AS run
    WHERE run.loop = names.loop AND run.last_at >= %(since)s
    ORDER BY run.last_at DESC
    LIMIT 200
) AS stretch
