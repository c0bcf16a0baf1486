-- Adds to the minutes of tasks; %(rows)s is a JSON array of what is added. Only the roll_up loop and
-- retention write them, the loop in the transaction that removes the appended rows, so that each is added
-- once.
-- Run by the roll_up loop. Index: task_minutes_pkey.
INSERT INTO opsjobs.task_minutes AS t (task, minute, enqueued, finished, failed, canceled, waits, runs,
    wait_seconds, run_seconds, longest_wait, longest_run, peak_kb)
SELECT task, minute, enqueued, finished, failed, canceled, waits, runs, wait_seconds, run_seconds,
    longest_wait, longest_run, peak_kb
FROM jsonb_populate_recordset(NULL::opsjobs.task_minutes, %(rows)s)
ORDER BY task, minute
ON CONFLICT (task, minute) DO UPDATE SET (enqueued, finished, failed, canceled, waits, runs, wait_seconds,
    run_seconds, longest_wait, longest_run, peak_kb) = {add_task_counts.sql}
