-- Selects the workers that listen to their queues, all columns. This is the only answer to "who listens": badges, the
-- overview, the queue pages, `why` and dispatch include it in their statements as {listeners.sql}.
-- A worker listens while it has not ended and its last heartbeat is younger than %(late_seconds)s, whether or not the
-- watch loop is there to say so. A plain RQ worker listens for as long as RQ itself believes in it. The table is small.
-- Locks nothing. Run by lifeline/queries.py, and inside other statements. Index: workers_alive.
SELECT w.* FROM opsjobs.workers w
WHERE w.ended_at IS NULL
    AND w.heartbeat_at > %(now)s::timestamptz - interval '1 s'
        * greatest(%(late_seconds)s::float8, (w.counts ->> 'rq_ttl_seconds')::float8)
