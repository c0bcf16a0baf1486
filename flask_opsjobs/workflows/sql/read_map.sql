-- Reads what the expansion of a map needs, and whether its job is still in the attempt that asks: one that
-- was rescued is not. The caller holds the run's lock, and took it in an earlier statement.
-- Run by the job of a map. Indexes: steps_pkey, workflows_pkey, jobs_pkey.
SELECT s.job_id AS id, w.id AS run, w.state, w.steps, s.name, s.settled, s.expanded_at, s.may_fail,
    j.state = 'started' AND j.attempt = %(attempt)s AS is_current, clock_timestamp() AS now
FROM opsjobs.steps s JOIN opsjobs.workflows w ON w.id = s.workflow_id JOIN opsjobs.jobs j ON j.id = s.job_id
WHERE s.job_id = %(id)s
