-- Selects the workers that listen to their queues, with all columns. This is the only definition of
-- "listens": badges, the overview, the queue pages, `why` and dispatch include it in their statements as
-- {listeners.sql}. A worker listens when it has not ended and its last heartbeat is younger than
-- %(late_seconds)s, even when no watch loop runs. A plain RQ worker listens until its key in Redis expires.
-- The table is small. Locks nothing.
-- Run by workers/queries.py, and inside other statements. Index: workers_alive.
SELECT w.* FROM opsjobs.workers w
WHERE w.ended_at IS NULL
    AND w.heartbeat_at > %(now)s::timestamptz - interval '1 s'
        * greatest(%(late_seconds)s::float8, (w.counts ->> 'rq_ttl_seconds')::float8)
