-- Adds to the totals of queues; %(rows)s is a JSON array of what is added. Only this loop writes them, in the
-- transaction that folds the counter rows or moves the position of the counted minutes, so that each enqueued
-- job and each end is added once.
-- Run by the roll_up loop. Index: queue_totals_pkey.
INSERT INTO opsjobs.queue_totals AS t
    (queue, enqueued, finished, failed, canceled, waits, runs, wait_seconds, run_seconds)
SELECT queue, enqueued, finished, failed, canceled, waits, runs, wait_seconds, run_seconds
FROM jsonb_to_recordset(%(rows)s::jsonb) AS given (queue text, enqueued bigint, finished bigint,
    failed bigint, canceled bigint, waits bigint[], runs bigint[], wait_seconds float8, run_seconds float8)
ON CONFLICT (queue) DO UPDATE SET enqueued = t.enqueued + excluded.enqueued,
    finished = t.finished + excluded.finished, failed = t.failed + excluded.failed,
    canceled = t.canceled + excluded.canceled,
    waits = ARRAY(SELECT coalesce(a, 0) + coalesce(b, 0)
        FROM unnest(t.waits, excluded.waits) WITH ORDINALITY AS u(a, b, number) ORDER BY number),
    runs = ARRAY(SELECT coalesce(a, 0) + coalesce(b, 0)
        FROM unnest(t.runs, excluded.runs) WITH ORDINALITY AS u(a, b, number) ORDER BY number),
    wait_seconds = t.wait_seconds + excluded.wait_seconds,
    run_seconds = t.run_seconds + excluded.run_seconds
