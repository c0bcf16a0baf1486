-- Finds the queue, not a paused one, whose first job without a limiter has been due for longest; jobs of
-- paused tasks do not count. One probe for each priority of each queue. The lane of a job without a limiter
-- has the name of its queue.
-- Rows: opsjobs, since no other is available.
-- Run by the doctor, read-only. Indexes: jobs_due, jobs_by_queue.
WITH RECURSIVE first (lane, priority, due_at) AS (
    SELECT found.* FROM {list_queue_names.sql} AS queue, LATERAL (
        SELECT lane, priority, due_at FROM opsjobs.jobs WHERE state = 'available' AND lane = queue.name
            AND task NOT IN (SELECT p.task FROM opsjobs.task_pauses p)
        ORDER BY lane, priority, due_at LIMIT 1
    ) AS found
    WHERE NOT EXISTS (SELECT FROM opsjobs.queues q WHERE q.name = queue.name AND q.is_paused)
    UNION ALL
    SELECT next.* FROM first, LATERAL (
        SELECT lane, priority, due_at FROM opsjobs.jobs
        WHERE state = 'available' AND lane = first.lane AND priority > first.priority
            AND task NOT IN (SELECT p.task FROM opsjobs.task_pauses p)
        ORDER BY lane, priority, due_at LIMIT 1
    ) AS next
)
SELECT lane AS queue, due_at FROM first ORDER BY due_at LIMIT 1
