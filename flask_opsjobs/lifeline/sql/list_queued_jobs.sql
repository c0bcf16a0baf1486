-- Lists jobs that were dispatched at least %(seconds)s ago and that no worker has reserved: id, dispatch
-- number, queue. A dispatch time in the future is from before the clock was stepped back, and counts as old.
-- Few jobs are queued at a time, a prefetch for each queue; reads at most %(limit)s, with ids above
-- %(after)s. Locks nothing.
-- Rows: opsjobs, by origin.
-- Run by the recall loop. Index: jobs_queued.
SELECT id, dispatch_no, queue FROM opsjobs.jobs
WHERE state = 'queued' AND reserved_by IS NULL AND id > %(after)s AND origin = 'opsjobs'
    AND (dispatched_at IS NULL OR dispatched_at > %(now)s
        OR dispatched_at <= %(now)s::timestamptz - %(seconds)s::float8 * interval '1 s')
ORDER BY id LIMIT %(limit)s
