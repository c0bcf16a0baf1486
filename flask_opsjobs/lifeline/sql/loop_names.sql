-- Lists the names of the loops that ever made a pass, by a loose index scan: one probe for each name, however
-- many stretches are stored. Other statements in this folder use it as {loop_names.sql}. Locks nothing.
-- Run as a part of them. Index: loop_runs_latest.
WITH RECURSIVE names (loop) AS (
    (SELECT loop FROM opsjobs.loop_runs ORDER BY loop LIMIT 1)
    UNION ALL
    SELECT (SELECT run.loop FROM opsjobs.loop_runs AS run
            WHERE run.loop > names.loop
            ORDER BY run.loop LIMIT 1)
    FROM names
    WHERE names.loop IS NOT NULL
)
SELECT loop FROM names WHERE loop IS NOT NULL
