-- Finds by name the workers of some kinds that have not ended, that listen to a queue, run on a machine, or
-- both. The table is small. Locks nothing.
-- Run by actions on all workers of a queue or of a machine. Index: workers_alive.
SELECT name FROM opsjobs.workers
WHERE ended_at IS NULL AND kind = ANY (%(kinds)s::text[])
    AND (%(queue)s::text IS NULL OR %(queue)s = ANY (queues)) AND (%(host)s::text IS NULL OR host = %(host)s)
ORDER BY id LIMIT %(limit)s
