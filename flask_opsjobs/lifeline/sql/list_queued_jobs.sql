-- Lists jobs that were dispatched to RQ a while ago and that nobody has claimed: id, dispatch number, queue.
-- One dispatched in the future was so before the clock was stepped back, and counts as old.
-- Few rows are queued, a prefetch per queue; %(limit)s at a time, from %(after)s on. Locks nothing.
-- Run by the recall loop. Index: jobs_queued.
SELECT id, dispatch_no, queue FROM opsjobs.jobs
WHERE state = 'queued' AND id > %(after)s AND origin = 'opsjobs'
    AND (dispatched_at IS NULL OR dispatched_at > %(now)s
        OR dispatched_at <= %(now)s::timestamptz - %(seconds)s::float8 * interval '1 s')
ORDER BY id LIMIT %(limit)s
