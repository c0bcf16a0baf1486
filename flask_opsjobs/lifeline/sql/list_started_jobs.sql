-- Lists the jobs that stand as `started` by one worker, as (id, dispatch number). Locks nothing.
-- Run by a worker after its heartbeat, to see which of them it does not run. Index: jobs_started.
SELECT id, dispatch_no FROM opsjobs.jobs
WHERE state = 'started' AND worker_id = %(id)s AND origin = 'opsjobs'
