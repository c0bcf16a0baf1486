-- Reads steps of a run for the decision about an operator's action: the step of that name, or without a name
-- all steps that did not finish by themselves. Locks nothing.
-- Rows: opsjobs, by their runs.
-- Run by actions, first for the preview and again under the lock. Indexes: steps_name_key, jobs_pkey.
SELECT s.job_id AS id, s.name, s.kind, s.released_at IS NOT NULL AND s.kind <> 'wait' AS is_released,
    s.opened_at, s.signals, s.key, j.state, j.ended_by, j.dispatch_no, j.lane, j.queue
FROM opsjobs.steps s JOIN opsjobs.jobs j ON j.id = s.job_id
WHERE s.workflow_id = %(run)s AND (s.name = %(name)s
    OR (%(name)s::text IS NULL AND j.state IN ('failed', 'canceled') AND j.ended_by <> 'dependency'))
ORDER BY s.job_id LIMIT %(limit)s
