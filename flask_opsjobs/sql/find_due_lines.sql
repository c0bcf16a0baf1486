-- The lines that have jobs due now, each once, with their queue.
-- Jumps from line to line along the index instead of reading every due job.
-- Run by the dispatch loop. Index: jobs_due.
WITH RECURSIVE found AS (
    (SELECT line, queue FROM opsjobs.jobs WHERE state = 'available' ORDER BY line LIMIT 1)
    UNION ALL
    SELECT next.line, next.queue FROM found CROSS JOIN LATERAL (
        SELECT line, queue FROM opsjobs.jobs
        WHERE state = 'available' AND line > found.line ORDER BY line LIMIT 1) AS next
)
SELECT line, queue FROM found
