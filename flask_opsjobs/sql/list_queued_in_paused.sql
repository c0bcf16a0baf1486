-- Jobs that stand as handed out in queues that are paused and do not drain: id, dispatch number, queue; of one queue or of
-- all. A dispatcher that read the queue before the pause was committed leaves them. Locks nothing: recall is fenced.
-- Run after a pause, and by the recall loop. Indexes: queues_pkey, jobs_queued.
SELECT j.id, j.dispatch_no, j.queue
FROM opsjobs.queues q JOIN opsjobs.jobs j ON j.queue = q.name
WHERE q.is_paused AND NOT q.is_draining AND (%(queue)s::text IS NULL OR q.name = %(queue)s)
    AND j.state = 'queued' AND j.origin = 'opsjobs'
ORDER BY j.id LIMIT %(limit)s
