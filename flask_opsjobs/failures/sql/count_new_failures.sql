-- Counts the failures that are new since %(since)s, by task.
-- Run by the roll_up loop. Index: failures_by_task.
SELECT task, count(*) FROM opsjobs.failures
WHERE task = ANY (%(tasks)s::text[]) AND created_at >= %(since)s GROUP BY task
