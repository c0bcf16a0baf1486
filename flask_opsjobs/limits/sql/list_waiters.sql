-- Lists the jobs that start next from a bucket, in the order of their lanes, at most %(limit)s. Leaves out
-- jobs that weigh more than %(heaviest)s (NULL: none). Each queue has a lane of its own for the bucket: reads
-- at most 200 queues, with one probe each. Locks nothing.
-- Rows: both.
-- Run by limits/queries.py. Indexes: jobs_by_queue, jobs_due.
WITH RECURSIVE queues (name) AS (
    (SELECT queue FROM opsjobs.jobs ORDER BY queue LIMIT 1)
    UNION ALL
    SELECT (SELECT queue FROM opsjobs.jobs WHERE queue > queues.name ORDER BY queue LIMIT 1)
    FROM queues WHERE queues.name IS NOT NULL
)
SELECT next.* FROM (SELECT name FROM queues WHERE name IS NOT NULL LIMIT 200) AS queues CROSS JOIN LATERAL (
    SELECT id, task, queue, weight, priority, due_at FROM opsjobs.jobs
    WHERE state = 'available' AND lane = queues.name || '|' || %(limiter)s || '|' || %(partition)s
        AND (%(heaviest)s::int IS NULL OR weight <= %(heaviest)s)
    ORDER BY lane, priority, due_at, id LIMIT %(limit)s
) AS next
ORDER BY next.priority, next.due_at, next.id LIMIT %(limit)s
