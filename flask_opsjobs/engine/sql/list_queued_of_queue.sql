-- Lists the jobs of one queue that were dispatched at least %(seconds)s ago and that no worker has reserved:
-- id, dispatch number, queue; the oldest first, at most %(limit)s. A dispatch time in the future is from
-- before the clock was stepped back, and counts as old. Locks nothing: the recall that follows is fenced by
-- the dispatch number.
-- Rows: opsjobs, by origin.
-- Run before and after the action `queue.resync`. Index: jobs_queued.
SELECT id, dispatch_no, queue FROM opsjobs.jobs
WHERE queue = %(queue)s AND state = 'queued' AND reserved_by IS NULL AND origin = 'opsjobs'
    AND (dispatched_at IS NULL OR dispatched_at > %(now)s
        OR dispatched_at <= %(now)s::timestamptz - %(seconds)s::float8 * interval '1 s')
ORDER BY queue, dispatched_at LIMIT %(limit)s
