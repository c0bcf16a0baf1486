-- Finds the prefetch of one queue, for the jobs of one lane, and how many jobs of the queue are in Redis,
-- counted up to the prefetch: size, used. Computes as dispatch_lane.sql does, except that it ignores a pause;
-- a test compares them. Locks nothing.
-- Rows: opsjobs, by origin.
-- Run by explain/queries.py. Indexes: queues_pkey, workers_alive, jobs_queued.
WITH prefetch AS MATERIALIZED (
    SELECT coalesce(q.prefetch, %(prefetch)s::int, greatest(2, (
        SELECT sum(CASE WHEN %(lane)s = %(queue)s THEN 2 ELSE 20 END * e.processes)
        FROM {listeners.sql} AS e WHERE %(queue)s = ANY (e.queues))))::bigint AS size
    FROM (SELECT 1) AS one LEFT JOIN opsjobs.queues q ON q.name = %(queue)s
)
SELECT size, (
    SELECT count(*) FROM (
        SELECT 1 FROM opsjobs.jobs
        WHERE queue = %(queue)s AND state = 'queued' AND reserved_by IS NULL AND origin = 'opsjobs'
        LIMIT (SELECT size FROM prefetch)) AS seen) AS used
FROM prefetch
