-- Finds queues with due jobs to which no live worker listens, and that are not paused or draining. The queues
-- are found by loose scans, one probe for each lane, at most 2,000; then up to 1,000 jobs of all their lanes
-- are counted, also those whose deliveries wait in Redis.
-- Not our own queue, which the process of the loops serves.
-- Managed jobs only: what RQ runs is not ours to serve.
-- Rows: opsjobs, by origin.
-- Run by the loop detect. Indexes: jobs_due, jobs_queued, workers_alive.
WITH RECURSIVE lanes (lane, queue, due_at) AS (
    (SELECT lane, queue, due_at FROM opsjobs.jobs WHERE state = 'available'
     ORDER BY lane, priority, due_at LIMIT 1)
    UNION ALL
    SELECT next.* FROM lanes, LATERAL (
        SELECT lane, queue, due_at FROM opsjobs.jobs
        WHERE state = 'available' AND lane > lanes.lane
        ORDER BY lane, priority, due_at LIMIT 1
    ) AS next
), with_queued (queue, due_at) AS (
    (SELECT queue, dispatched_at FROM opsjobs.jobs WHERE state = 'queued' AND origin = 'opsjobs'
     ORDER BY queue, dispatched_at LIMIT 1)
    UNION ALL
    SELECT next.* FROM with_queued, LATERAL (
        SELECT queue, dispatched_at FROM opsjobs.jobs
        WHERE state = 'queued' AND origin = 'opsjobs' AND queue > with_queued.queue
        ORDER BY queue, dispatched_at LIMIT 1
    ) AS next
), bounded AS MATERIALIZED (
    SELECT lane, queue, due_at FROM lanes LIMIT 2000
), due AS (
    SELECT queue, min(due_at) AS due_at FROM (
        SELECT queue, due_at FROM bounded
        UNION ALL
        (SELECT queue, due_at FROM with_queued LIMIT 2000)
    ) AS found GROUP BY queue
), unserved AS MATERIALIZED (
    SELECT queue, due_at FROM due
    WHERE queue <> 'opsjobs'
        AND NOT EXISTS (SELECT FROM opsjobs.queues q WHERE q.name = due.queue AND q.is_paused)
        AND NOT EXISTS (SELECT FROM {listeners.sql} AS e WHERE due.queue = ANY (e.queues))
    ORDER BY queue LIMIT %(limit)s
)
SELECT u.queue, u.due_at, counted.number
FROM unserved u
CROSS JOIN LATERAL (
    SELECT least(count(*), 1000) AS number FROM (
        (SELECT 1 FROM bounded b CROSS JOIN LATERAL (
            SELECT 1 FROM opsjobs.jobs WHERE lane = b.lane AND state = 'available' LIMIT 1000) AS in_lane
         WHERE b.queue = u.queue LIMIT 1000)
        UNION ALL
        (SELECT 1 FROM opsjobs.jobs WHERE queue = u.queue AND state = 'queued' AND origin = 'opsjobs'
         LIMIT 1000)
    ) AS capped
) AS counted
ORDER BY u.queue
