-- Lists the deliveries of those of these jobs that are `queued` and that no worker has reserved: id, dispatch
-- number, queue. Locks nothing: the recall that may follow is fenced by the dispatch number.
-- Rows: opsjobs, by origin.
-- Run before an action that needs to know where they are in Redis. Index: jobs_pkey.
SELECT id, dispatch_no, queue FROM opsjobs.jobs
WHERE id = ANY (%(ids)s::bigint[]) AND state = 'queued' AND reserved_by IS NULL AND origin = 'opsjobs'
ORDER BY id
