-- Lists `queued` jobs that no worker has reserved, of tasks that are paused: id, dispatch number, queue; of
-- one task or of all. Such jobs remain when a dispatcher read the tasks before the pause was committed. Locks
-- nothing: the recall that follows is fenced by the dispatch number.
-- Rows: opsjobs, by origin.
-- Run after a pause, and by the recall loop. Indexes: task_pauses_pkey, jobs_queued.
SELECT j.id, j.dispatch_no, j.queue
FROM opsjobs.task_pauses p CROSS JOIN LATERAL (
    SELECT id, dispatch_no, queue FROM opsjobs.jobs
    WHERE task = p.task AND state = 'queued' AND reserved_by IS NULL AND origin = 'opsjobs'
    ORDER BY queue, dispatched_at LIMIT %(limit)s
) AS j
WHERE %(task)s::text IS NULL OR p.task = %(task)s
