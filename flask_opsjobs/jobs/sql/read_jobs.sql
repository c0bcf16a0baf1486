-- Reads jobs for the decision about an operator's action, each with its worker, its batch, the step of a
-- workflow that it is, and the job that holds the unexpired unique lock of the same call. Locks nothing.
-- Rows: both.
-- Run by actions, first for the preview and again under the lock. Indexes: jobs_pkey, workers_pkey,
-- batches_pkey, unique_locks_pkey, steps_pkey, workflows_pkey.
SELECT j.id, j.origin, j.task, j.queue, j.lane, j.priority, j.state, j.dispatch_no,
    j.attempt, j.max_attempts, j.due_at, j.deadline_at,
    j.ended_at, j.ended_by, j.cancel_requested_at, j.cancel_requested_by, j.unique_key, j.unique_until,
    j.cron_entry, j.batch_id, b.state AS batch_state, b.cancel_requested_at IS NOT NULL AS is_batch_canceled,
    coalesce(j.reserved_by, j.worker_id) AS worker_id, w.name AS worker, w.kind AS worker_kind,
    w.state AS worker_state, w.heartbeat_at AS worker_heartbeat_at, w.ended_at AS worker_ended_at,
    j.reserved_by IS NOT NULL AS is_reserved, j.started_at, j.dispatched_at,
    u.job_id AS unique_lock_of,
    s.workflow_id, r.state AS workflow_state, s.name AS step, s.kind AS step_kind,
    s.released_at IS NOT NULL AND s.kind <> 'wait' AS is_step_released,
    j.rq_place, j.rq_id, j.rq_created_at
FROM opsjobs.jobs j
LEFT JOIN opsjobs.workers w ON w.id = coalesce(j.reserved_by, j.worker_id)
LEFT JOIN opsjobs.batches b ON b.id = j.batch_id
LEFT JOIN opsjobs.unique_locks u ON u.key = j.unique_key AND (u.expires_at IS NULL OR u.expires_at > %(now)s)
LEFT JOIN opsjobs.steps s ON s.job_id = j.id
LEFT JOIN opsjobs.workflows r ON r.id = s.workflow_id
WHERE j.id = ANY (%(ids)s::bigint[])
ORDER BY j.id
