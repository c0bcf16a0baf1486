-- Lists `queued` jobs that no worker has reserved, of queues that are paused and do not drain: id, dispatch
-- number, queue; of one queue or of all. Such jobs remain when a dispatcher read the queue before the pause
-- was committed. Locks nothing: the recall that follows is fenced by the dispatch number. Reads one queue at
-- a time, because an order by id would tempt the planner to walk all jobs.
-- Rows: opsjobs, by origin.
-- Run after a pause, and by the recall loop. Indexes: queues_pkey, jobs_queued.
SELECT j.id, j.dispatch_no, j.queue
FROM opsjobs.queues q CROSS JOIN LATERAL (
    SELECT id, dispatch_no, queue FROM opsjobs.jobs
    WHERE queue = q.name AND state = 'queued' AND reserved_by IS NULL AND origin = 'opsjobs'
    ORDER BY queue, dispatched_at LIMIT %(limit)s
) AS j
WHERE q.is_paused AND NOT q.is_draining AND (%(queue)s::text IS NULL OR q.name = %(queue)s)
