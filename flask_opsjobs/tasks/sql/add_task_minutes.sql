-- Adds to the minutes of tasks; %(rows)s is a JSON array of what is added. Only the roll_up loop and
-- retention write them, the loop in the transaction that removes the appended rows, so that each is added
-- once.
-- Run by the roll_up loop. Index: task_minutes_pkey.
INSERT INTO opsjobs.task_minutes AS t (task, minute, enqueued, finished, failed, canceled, waits, runs,
    wait_seconds, run_seconds, longest_wait, longest_run, peak_kb)
SELECT task, at, enqueued, finished, failed, canceled, waits, runs, wait_seconds, run_seconds, longest_wait,
    longest_run, peak_kb
FROM jsonb_to_recordset(%(rows)s::jsonb) AS given (task text, at timestamptz, enqueued bigint,
    finished bigint, failed bigint, canceled bigint, waits bigint[], runs bigint[], wait_seconds float8,
    run_seconds float8, longest_wait float8, longest_run float8, peak_kb bigint)
ORDER BY task, at
ON CONFLICT (task, minute) DO UPDATE SET enqueued = t.enqueued + excluded.enqueued,
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
