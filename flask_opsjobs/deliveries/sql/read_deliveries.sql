-- Reads of each of these deliveries what its job is now, NULL when it was deleted, and whether a worker said
-- in its last heartbeat that it has reserved the delivery. Locks nothing.
-- Rows: opsjobs, by origin.
-- Run by actions, first for the preview and again under the lock. Indexes: jobs_pkey, workers_alive.
SELECT n.job_id, n.dispatch_no, j.state AS job_state, j.dispatch_no AS job_dispatch_no,
    EXISTS (SELECT FROM opsjobs.workers w
            WHERE w.ended_at IS NULL AND n.job_id || '-' || n.dispatch_no = ANY (w.reserved)) AS is_reserved
FROM unnest(%(job_ids)s::bigint[], %(dispatch_nos)s::bigint[]) AS n(job_id, dispatch_no)
LEFT JOIN opsjobs.jobs j ON j.id = n.job_id AND j.origin = 'opsjobs'
