-- Reads queues as an operator's plan judges them, of these names; one that is neither recorded, nor declared, nor named
-- by a job, nor listened to is left out. Locks nothing. Whether a job names it is one probe of the index: an EXISTS
-- would be planned as a walk through the table, which for an unknown name is all of it. A worker that went silent a
-- moment ago still names its queues: listeners.sql says who listens, this says which queues there are.
-- Run by actions, for a plan and again under the lock. Indexes: queues_pkey, jobs_by_queue, workers_alive.
SELECT n.name, coalesce(q.is_paused, false) AS is_paused, coalesce(q.is_draining, false) AS is_draining,
    q.prefetch, q.paused_at, q.paused_by
FROM unnest(%(names)s::text[]) AS n(name)
LEFT JOIN opsjobs.queues q ON q.name = n.name
WHERE q.name IS NOT NULL OR n.name = ANY (%(declared)s::text[])
    OR n.name = (SELECT j.queue FROM opsjobs.jobs j WHERE j.queue >= n.name ORDER BY j.queue LIMIT 1)
    OR EXISTS (SELECT FROM opsjobs.workers w WHERE w.ended_at IS NULL AND n.name = ANY (w.queues))
ORDER BY n.name
