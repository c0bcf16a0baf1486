-- Finds when any loop last made a pass, of passes before now; NULL when there was none. Two probes for each
-- loop's name. A pass that was recorded before the clock was stepped back is ignored.
-- Run by each worker after its heartbeat. Index: loop_runs_latest.
SELECT max(latest.last_at) FROM {loop_names.sql} AS names, LATERAL (
    SELECT run.last_at FROM opsjobs.loop_runs AS run
    WHERE run.loop = names.loop AND run.last_at <= %(now)s
    ORDER BY run.last_at DESC LIMIT 1
) AS latest
