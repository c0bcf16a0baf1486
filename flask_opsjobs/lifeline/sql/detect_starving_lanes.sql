-- Finds lanes of which the first due job has waited for a minute or longer, of which no job is in Redis,
-- taken or started, while other jobs of the same queue started within a minute. Paused queues and tasks
-- are left out. Returns the lane, its queue, its first job, and since when that is due.
-- Rows: opsjobs, by origin.
-- Run by the loop detect, which then compares the wait with the usual one and asks the limiter. Indexes:
-- jobs_due, jobs_limited, leases_by_bucket, jobs_queued, jobs_started.
WITH RECURSIVE lanes (lane, queue, id, due_at, limiter, partition, weight, origin) AS (
    (SELECT lane, queue, id, due_at, limiter, partition, weight, origin FROM opsjobs.jobs
     WHERE state = 'available' AND task NOT IN (SELECT p.task FROM opsjobs.task_pauses p)
     ORDER BY lane, priority, due_at, id LIMIT 1)
    UNION ALL
    SELECT next.* FROM lanes, LATERAL (
        SELECT lane, queue, id, due_at, limiter, partition, weight, origin FROM opsjobs.jobs
        WHERE state = 'available' AND lane > lanes.lane
            AND task NOT IN (SELECT p.task FROM opsjobs.task_pauses p)
        ORDER BY lane, priority, due_at, id LIMIT 1
    ) AS next
), recent AS MATERIALIZED (
    SELECT queue FROM opsjobs.jobs
    WHERE state = 'started' AND started_at > %(now)s::timestamptz - interval '1 min' AND origin = 'opsjobs'
    GROUP BY queue
)
SELECT l.lane, l.queue, l.id, l.due_at, l.limiter, l.partition, l.weight
FROM (SELECT * FROM lanes LIMIT %(limit)s) AS l
JOIN recent ON recent.queue = l.queue
WHERE l.due_at < %(now)s::timestamptz - interval '1 min'
    AND NOT EXISTS (SELECT FROM opsjobs.queues q WHERE q.name = l.queue AND q.is_paused)
    AND NOT EXISTS (
        SELECT FROM opsjobs.jobs j
        WHERE j.limiter IS NOT NULL AND j.state = 'queued' AND j.limiter = l.limiter
            AND j.partition = l.partition)
    AND NOT EXISTS (
        SELECT FROM opsjobs.leases h WHERE h.limiter = l.limiter AND h.partition = l.partition)
    AND (l.limiter IS NOT NULL OR NOT EXISTS (
        SELECT FROM opsjobs.jobs j
        WHERE j.state = 'queued' AND j.origin = 'opsjobs' AND j.queue = l.queue AND j.lane = l.lane))
ORDER BY l.due_at
LIMIT %(limit)s
