-- Reads what somebody asked of a worker: to leave, and to stop some of its jobs. Returns (is_drained, job id,
-- dispatch number) for each of these jobs, a row with NULLs when there is none, and no row when the worker is
-- unknown. Locks nothing.
-- Run by each worker of ours when a request is announced. Indexes: workers_pkey, jobs_started, jobs_queued.
SELECT w.drain_requested_at IS NOT NULL AS is_drained, j.id, j.dispatch_no
FROM opsjobs.workers w
LEFT JOIN {list_stops_wanted.sql} AS j ON true
WHERE w.id = %(id)s
