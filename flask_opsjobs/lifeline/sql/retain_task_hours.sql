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
    ON CONFLICT (task, hour) DO UPDATE SET enqueued = t.enqueued + excluded.enqueued,
        finished = t.finished + excluded.finished, failed = t.failed + excluded.failed,
        canceled = t.canceled + excluded.canceled,
        waits = ARRAY(SELECT coalesce(a, 0) + coalesce(b, 0)
            FROM unnest(t.waits, excluded.waits) WITH ORDINALITY AS u(a, b, number) ORDER BY number),
        runs = ARRAY(SELECT coalesce(a, 0) + coalesce(b, 0)
            FROM unnest(t.runs, excluded.runs) WITH ORDINALITY AS u(a, b, number) ORDER BY number),
        wait_seconds = t.wait_seconds + excluded.wait_seconds,
        run_seconds = t.run_seconds + excluded.run_seconds,
        longest_wait = greatest(t.longest_wait, excluded.longest_wait),
        longest_run = greatest(t.longest_run, excluded.longest_run),
        peak_kb = greatest(t.peak_kb, excluded.peak_kb)
)
SELECT task FROM counts
