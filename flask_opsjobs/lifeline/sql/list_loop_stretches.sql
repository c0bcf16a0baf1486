-- Lists the stretches of each loop that reached %(since)s, the newest first, at most 200 of each. Locks
-- nothing.
-- Run by lifeline/loop_runs.py. Index: loop_runs_latest.
SELECT names.loop, stretch.started_at, stretch.last_at
FROM (SELECT loop FROM {loop_names.sql} AS every LIMIT 50) AS names, LATERAL (
    SELECT run.started_at, run.last_at
    FROM opsjobs.loop_runs AS run
    WHERE run.loop = names.loop AND run.last_at >= %(since)s
    ORDER BY run.last_at DESC
    LIMIT 200
) AS stretch
