-- Adds at most %(limit)s hours of tasks before %(before)s, oldest first, to the one row of their task for
-- 1970-01-01 00:00, and removes them. So the sums of a task never shrink. Returns a row for each.
-- Run by the retain loop and by `flask opsjobs retain`. Indexes: task_hours_by_hour, task_hours_pkey.
WITH old AS MATERIALIZED (
    SELECT task, hour FROM opsjobs.task_hours WHERE hour > 'epoch' AND hour < %(before)s
    ORDER BY hour LIMIT %(limit)s
), counts AS MATERIALIZED (
    DELETE FROM opsjobs.task_hours t USING old WHERE t.task = old.task AND t.hour = old.hour
    RETURNING t.*
), sums AS MATERIALIZED {sum_task_counts.sql}, added AS (
    INSERT INTO opsjobs.task_hours AS t (task, hour, enqueued, finished, failed, canceled, waits, runs,
        wait_seconds, run_seconds, longest_wait, longest_run, peak_kb)
    SELECT task, 'epoch', enqueued, finished, failed, canceled, coalesce(waits, '{}'), coalesce(runs, '{}'),
        wait_seconds, run_seconds, longest_wait, longest_run, peak_kb
    FROM sums ORDER BY task
    ON CONFLICT (task, hour) DO UPDATE SET (enqueued, finished, failed, canceled, waits, runs, wait_seconds,
        run_seconds, longest_wait, longest_run, peak_kb) = {add_task_counts.sql}
)
SELECT task FROM counts
