-- The executors that listen to their queues, all columns. This is the only answer to "who listens": badges, the overview,
-- the queue pages, `why` and dispatch include it in their statements as {listeners.sql}.
-- An executor listens while it has not ended and its last heartbeat is younger than %(late_seconds)s, whether or not the
-- watch loop is there to say so. A plain RQ worker listens for as long as RQ itself believes in it. The table is small.
-- Locks nothing. Run by lifeline/queries.py, and inside other statements. Index: executors_alive.
SELECT e.* FROM opsjobs.executors e
WHERE e.ended_at IS NULL
    AND e.beat_at > %(now)s::timestamptz - interval '1 s'
        * greatest(%(late_seconds)s::float8, (e.counts ->> 'rq_ttl_seconds')::float8)
