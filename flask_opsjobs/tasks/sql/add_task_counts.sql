-- Adds what an INSERT brings, `excluded`, to what the row `t` of a minute or an hour of a task has counted.
-- Part of the statements that write the numbers of tasks: these lock the row.
SELECT t.enqueued + excluded.enqueued, t.finished + excluded.finished, t.failed + excluded.failed,
    t.canceled + excluded.canceled,
    ARRAY(SELECT coalesce(a, 0) + coalesce(b, 0)
        FROM unnest(t.waits, excluded.waits) WITH ORDINALITY AS u(a, b, number) ORDER BY number),
    ARRAY(SELECT coalesce(a, 0) + coalesce(b, 0)
        FROM unnest(t.runs, excluded.runs) WITH ORDINALITY AS u(a, b, number) ORDER BY number),
    t.wait_seconds + excluded.wait_seconds, t.run_seconds + excluded.run_seconds,
    greatest(t.longest_wait, excluded.longest_wait), greatest(t.longest_run, excluded.longest_run),
    greatest(t.peak_kb, excluded.peak_kb)
