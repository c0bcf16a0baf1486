-- Lists the `started` jobs of one worker, as (id, dispatch number). Locks nothing.
-- Rows: opsjobs, by origin.
-- Run by a worker after its heartbeat, to find jobs that it does not run. Index: jobs_started.
SELECT id, dispatch_no FROM opsjobs.jobs
WHERE state = 'started' AND worker_id = %(id)s AND origin = 'opsjobs'
