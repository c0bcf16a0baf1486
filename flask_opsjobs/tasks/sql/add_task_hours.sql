-- Adds to the hours of tasks; %(rows)s is a JSON array of what is added. Only the roll_up loop and retention
-- write them, the loop in the transaction that removes the appended rows, so that each is added once.
-- Run by the roll_up loop. Index: task_hours_pkey.
INSERT INTO opsjobs.task_hours AS t (task, hour, enqueued, finished, failed, canceled, waits, runs,
    wait_seconds, run_seconds, longest_wait, longest_run, peak_kb)
SELECT task, hour, enqueued, finished, failed, canceled, waits, runs, wait_seconds, run_seconds,
    longest_wait, longest_run, peak_kb
FROM jsonb_populate_recordset(NULL::opsjobs.task_hours, %(rows)s)
ORDER BY task, hour
ON CONFLICT (task, hour) DO UPDATE SET (enqueued, finished, failed, canceled, waits, runs, wait_seconds,
    run_seconds, longest_wait, longest_run, peak_kb) = {add_task_counts.sql}
