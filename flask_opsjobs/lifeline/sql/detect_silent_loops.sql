-- Finds loops that are not running, although the process that ran them is awake: another loop of it has made
-- a pass since the next one was due. So a loop that a deploy has left out is not silent.
-- Run by the loop detect. Index: loop_runs_latest.
WITH latest AS MATERIALIZED {list_latest_loop_runs.sql}
SELECT silent.loop, silent.process, silent.last_at, silent.every_seconds
FROM latest AS silent
WHERE NOT silent.is_running AND EXISTS (
    SELECT FROM latest AS other WHERE other.process = silent.process AND other.last_at > silent.due_by)
ORDER BY silent.loop
LIMIT %(limit)s
