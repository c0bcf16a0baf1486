-- Finds the lanes that have due jobs, not counting those of paused tasks. Returns (lane, queue, weight)
-- once per lane, ordered by the first job of each lane. `weight` is the weight of that first job in its
-- limiter, NULL when it has no limiter. Jumps from lane to lane along the index and does not read every
-- due job, so a lane costs one jump however many jobs wait in it. Locks nothing.
-- Rows: opsjobs, since no other is available.
-- Run by the dispatch loop. Index: jobs_due.
WITH RECURSIVE found AS (
    (SELECT lane, queue, weight, priority, due_at, id FROM opsjobs.jobs
     WHERE state = 'available' AND task NOT IN (SELECT p.task FROM opsjobs.task_pauses p)
     ORDER BY lane, priority, due_at, id LIMIT 1)
    UNION ALL
    SELECT next.* FROM found CROSS JOIN LATERAL (
        SELECT lane, queue, weight, priority, due_at, id FROM opsjobs.jobs
        WHERE state = 'available' AND lane > found.lane
            AND task NOT IN (SELECT p.task FROM opsjobs.task_pauses p)
        ORDER BY lane, priority, due_at, id LIMIT 1) AS next
)
SELECT lane, queue, weight FROM found
ORDER BY priority, due_at, id
