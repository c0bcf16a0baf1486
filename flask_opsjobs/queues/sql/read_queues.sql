-- Reads the queues with these names for the decision about an operator's action. Leaves out a queue that has
-- no row, no task, no job and no worker. Locks nothing. One probe of the index tells whether a job has this
-- queue: the planner would run an EXISTS as a scan of the table, which reads all of it for an unknown name. A
-- worker that went silent a moment ago still counts here: this statement tells which queues exist,
-- listeners.sql tells who listens.
-- Rows: both.
-- Run by actions, first for the preview and again under the lock. Indexes: queues_pkey, jobs_by_queue,
-- workers_alive.
SELECT n.name, coalesce(q.is_paused, false) AS is_paused, coalesce(q.is_draining, false) AS is_draining,
    q.prefetch, q.paused_at, q.paused_by, q.paused_reason
FROM unnest(%(names)s::text[]) AS n(name)
LEFT JOIN opsjobs.queues q ON q.name = n.name
WHERE q.name IS NOT NULL OR n.name = ANY (%(declared)s::text[])
    OR n.name = (SELECT j.queue FROM opsjobs.jobs j WHERE j.queue >= n.name ORDER BY j.queue LIMIT 1)
    OR EXISTS (SELECT FROM opsjobs.workers w WHERE w.ended_at IS NULL AND n.name = ANY (w.queues))
ORDER BY n.name
