-- Lists which of a worker's started and reserved jobs shall stop, because somebody wished it. Returns (id,
-- dispatch number). Locks nothing.
-- Rows: opsjobs, by origin.
-- Run inside other statements. Indexes: jobs_started, jobs_queued.
SELECT id, dispatch_no FROM opsjobs.jobs
WHERE worker_id = %(id)s AND state = 'started' AND cancel_requested_at IS NOT NULL AND origin = 'opsjobs'
UNION ALL
SELECT id, dispatch_no FROM opsjobs.jobs
WHERE reserved_by = %(id)s AND state = 'queued' AND cancel_requested_at IS NOT NULL AND origin = 'opsjobs'
