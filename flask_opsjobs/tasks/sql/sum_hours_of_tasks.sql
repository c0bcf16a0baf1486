-- Sums up the hours of each task from %(start)s until before %(end)s, at most %(limit)s tasks by name.
-- Locks nothing.
-- Run by tasks/queries.py. Index: task_hours_by_hour.
WITH counts AS MATERIALIZED (
    SELECT * FROM opsjobs.task_hours WHERE hour >= %(start)s AND hour < %(end)s
)
SELECT task, enqueued, finished, failed, canceled, coalesce(waits, '{}'), coalesce(runs, '{}'), longest_run,
    peak_kb
FROM {sum_task_counts.sql} AS sums ORDER BY task LIMIT %(limit)s
