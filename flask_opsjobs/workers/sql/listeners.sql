-- Selects the workers that listen to their queues, with all columns. This is the only definition of
-- "listens": badges, the overview, the queue pages, `why` and dispatch include it in their statements as
-- {listeners.sql}. A worker listens when it is alive and nobody asked it to leave. Locks nothing.
-- Run inside other statements. Index: workers_alive.
SELECT a.* FROM {alive_workers.sql} AS a WHERE a.drain_requested_at IS NULL
