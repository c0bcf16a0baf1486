-- Finds the prefetch of each of these queues, for the jobs of a lane that is the queue's own or one of a
-- limiter, and how many jobs of the queue are in Redis, counted up to the prefetch: size, used. Computes as
-- dispatch_lane.sql does, except that it ignores a pause; a test compares them. Locks nothing.
-- Rows: opsjobs, by origin.
-- Run by explain/queries.py. Indexes: queues_pkey, workers_alive, jobs_queued.
WITH alive AS MATERIALIZED (SELECT e.queues, e.processes FROM {listeners.sql} AS e),
prefetch AS MATERIALIZED (
    SELECT w.queue, w.is_limited, coalesce(q.prefetch, %(prefetch)s::int, greatest(2, (
        SELECT sum(CASE WHEN w.is_limited THEN 20 ELSE 2 END * e.processes)
        FROM alive AS e WHERE w.queue = ANY (e.queues))))::bigint AS size
    FROM unnest(%(queues)s::text[], %(are_limited)s::boolean[]) AS w(queue, is_limited)
    LEFT JOIN opsjobs.queues q ON q.name = w.queue
)
SELECT p.queue, p.is_limited, p.size, (
    SELECT count(*) FROM (
        SELECT 1 FROM opsjobs.jobs
        WHERE queue = p.queue AND state = 'queued' AND reserved_by IS NULL AND origin = 'opsjobs'
        LIMIT p.size) AS seen) AS used
FROM prefetch p
