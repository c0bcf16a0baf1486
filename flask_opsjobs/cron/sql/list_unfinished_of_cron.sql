-- Lists the jobs of an entry that have not ended, oldest first, with their workers. Locks nothing.
-- Rows: opsjobs, by their cron entries.
-- Run under the entry's lock, by the cron loop and actions. Indexes: jobs_of_cron, workers_pkey.
SELECT j.id, j.state, j.queue, j.dispatch_no, w.name AS worker
FROM opsjobs.jobs j LEFT JOIN opsjobs.workers w ON w.id = j.worker_id AND w.kind <> 'plain'
WHERE j.cron_entry = %(name)s AND j.ended_at IS NULL
ORDER BY j.id LIMIT 1000
