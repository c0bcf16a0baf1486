-- Finds the limited lanes of these queues that have due jobs, not counting those of paused tasks. Returns
-- (lane, queue, weight) once per lane, ordered by the first job of each lane. `weight` is the weight of
-- that first job in its limiter. Jumps from bucket to bucket along the index of limited jobs, and probes
-- the lane that each queue has for the bucket. Never looks at a lane without a limiter: its front may be
-- full of rows that were taken, and no vacuum removes them while somebody holds an old snapshot. Locks
-- nothing.
-- The lane is a range, as in take_jobs.sql.
-- Rows: opsjobs, since no other is available.
-- Run by a worker's recorder after jobs have ended, and by its taker while Redis is away. Indexes:
-- jobs_limited, jobs_due.
WITH RECURSIVE buckets AS (
    (SELECT limiter, partition FROM opsjobs.jobs
     WHERE limiter IS NOT NULL AND state IN ('available', 'queued') ORDER BY limiter, partition LIMIT 1)
    UNION ALL
    SELECT next.* FROM buckets AS b CROSS JOIN LATERAL (
        SELECT limiter, partition FROM opsjobs.jobs
        WHERE limiter IS NOT NULL AND state IN ('available', 'queued')
          AND (limiter, partition) > (b.limiter, b.partition) ORDER BY limiter, partition LIMIT 1) AS next
), lanes AS MATERIALIZED (
    SELECT q.queue || '|' || limiter || '|' || partition AS name
    FROM buckets CROSS JOIN unnest(%(queues)s::text[]) AS q(queue)
)
SELECT first.lane, first.queue, first.weight FROM lanes CROSS JOIN LATERAL (
    SELECT lane, queue, weight, priority, due_at, id FROM opsjobs.jobs
    WHERE state = 'available' AND lane >= lanes.name AND lane <= lanes.name
        AND task NOT IN (SELECT p.task FROM opsjobs.task_pauses p)
    ORDER BY lane, priority, due_at, id LIMIT 1) AS first
ORDER BY first.priority, first.due_at, first.id
