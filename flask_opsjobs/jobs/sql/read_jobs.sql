-- Reads jobs for the decision about an operator's action, each with its worker, its batch, the step of a
-- workflow that it is, and the job that holds the unexpired unique lock of the same call. Locks nothing.
-- Run by actions, first for the preview and again under the lock. Indexes: jobs_pkey, workers_pkey,
-- batches_pkey, unique_locks_pkey, steps_pkey, workflows_pkey.
SELECT j.id, j.origin, j.task, j.queue, j.lane, j.state, j.dispatch_no,
    j.attempt, j.max_attempts, j.due_at, j.deadline_at,
    j.ended_at, j.ended_by, j.cancel_requested_at, j.cancel_requested_by, j.unique_key, j.unique_until,
    j.cron_entry, j.batch_id, b.state AS batch_state, b.cancel_requested_at IS NOT NULL AS is_batch_canceled,
    w.name AS worker, w.kind AS worker_kind, j.reserved_by IS NOT NULL AS is_reserved,
    u.job_id AS unique_lock_of,
    s.workflow_id, r.state AS workflow_state, s.name AS step, s.kind AS step_kind,
    s.released_at IS NOT NULL AND s.kind <> 'wait' AS is_step_released
FROM opsjobs.jobs j
LEFT JOIN opsjobs.workers w ON w.id = coalesce(j.reserved_by, j.worker_id)
LEFT JOIN opsjobs.batches b ON b.id = j.batch_id
LEFT JOIN opsjobs.unique_locks u ON u.key = j.unique_key AND (u.expires_at IS NULL OR u.expires_at > %(now)s)
LEFT JOIN opsjobs.steps s ON s.job_id = j.id
LEFT JOIN opsjobs.workflows r ON r.id = s.workflow_id
WHERE j.id = ANY (%(ids)s::bigint[])
ORDER BY j.id
