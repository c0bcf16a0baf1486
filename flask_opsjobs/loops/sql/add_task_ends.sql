-- Adds the ends of jobs to the quarter of an hour of their task. Each minute is added once: the caller moves
-- its position in the same transaction.
-- Run by the roll_up loop. Index: task_ends_pkey.
INSERT INTO opsjobs.task_ends AS t (task, quarter, finished, failed)
SELECT task, quarter, finished, failed
FROM jsonb_to_recordset(%(rows)s::jsonb) AS g(task text, quarter timestamptz, finished bigint, failed bigint)
ON CONFLICT (task, quarter) DO UPDATE SET finished = t.finished + excluded.finished,
    failed = t.failed + excluded.failed
