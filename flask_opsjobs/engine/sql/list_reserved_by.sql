-- Lists the jobs that one worker has reserved, as (id, dispatch number). Few jobs are queued at a time.
-- Locks nothing: the giving back that follows is fenced.
-- Rows: opsjobs, by their reservations.
-- Run by a worker's taker, to find reservations whose answer was lost. Index: jobs_queued.
SELECT id, dispatch_no FROM opsjobs.jobs
WHERE state = 'queued' AND reserved_by = %(worker_id)s AND origin = 'opsjobs'
