-- Reads steps of a run for the decision about an operator's action, with the jobs that hold the unexpired
-- unique locks of the same calls: the step of that name, or without a name all steps that did not finish by
-- themselves. Locks nothing.
-- Run by actions, first for the preview and again under the lock. Indexes: steps_name_key, jobs_pkey,
-- unique_locks_pkey.
SELECT s.job_id AS id, s.name, s.kind, s.released_at IS NOT NULL AND s.kind <> 'wait' AS is_released,
    s.opened_at, s.signals, s.key, j.state, j.ended_by, j.dispatch_no, j.lane, j.queue, j.unique_until,
    u.job_id AS unique_lock_of, cause.name AS cause
FROM opsjobs.steps s JOIN opsjobs.jobs j ON j.id = s.job_id
LEFT JOIN opsjobs.steps cause ON cause.job_id = s.settled_by
LEFT JOIN opsjobs.unique_locks u ON u.key = j.unique_key AND (u.expires_at IS NULL OR u.expires_at > %(now)s)
WHERE s.workflow_id = %(run)s AND (s.name = %(name)s
    OR (%(name)s::text IS NULL AND j.state IN ('failed', 'canceled') AND j.ended_by <> 'dependency'))
ORDER BY s.job_id LIMIT %(limit)s
