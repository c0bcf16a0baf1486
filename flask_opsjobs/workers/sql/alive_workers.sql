-- Selects the workers that are alive, with all columns: they have not ended, and their last heartbeat is
-- younger than %(late_seconds)s, even when no watch loop runs. A plain RQ worker is alive until its key in
-- Redis expires. The table is small. Locks nothing.
-- Run inside other statements. Index: workers_alive.
SELECT w.* FROM opsjobs.workers w
WHERE w.ended_at IS NULL
    AND w.heartbeat_at > %(now)s::timestamptz - interval '1 s'
        * greatest(%(late_seconds)s::float8, (w.counts ->> 'rq_ttl_seconds')::float8)
