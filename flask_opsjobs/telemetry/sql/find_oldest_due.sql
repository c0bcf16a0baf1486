-- Finds since when the first available job of each queue is due, of tasks that are not paused. Returns queue,
-- due_at. A loose index scan:
-- one probe for each priority of each lane, at most %(most)s, however many jobs wait. Locks nothing.
-- Rows: opsjobs, since no other is available.
-- Run by telemetry/queries.py. Index: jobs_due.
WITH RECURSIVE firsts (lane, priority, queue, due_at) AS (
    (SELECT lane, priority, queue, due_at FROM opsjobs.jobs WHERE state = 'available'
        AND task NOT IN (SELECT p.task FROM opsjobs.task_pauses p)
     ORDER BY lane, priority, due_at LIMIT 1)
    UNION ALL
    SELECT next.* FROM firsts, LATERAL (
        SELECT lane, priority, queue, due_at FROM opsjobs.jobs
        WHERE state = 'available' AND (lane, priority) > (firsts.lane, firsts.priority)
            AND task NOT IN (SELECT p.task FROM opsjobs.task_pauses p)
        ORDER BY lane, priority, due_at LIMIT 1
    ) AS next
)
SELECT queue, min(due_at) AS due_at FROM (SELECT * FROM firsts LIMIT %(most)s) AS few GROUP BY queue
