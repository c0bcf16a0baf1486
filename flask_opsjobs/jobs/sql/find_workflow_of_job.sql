-- Finds the run and the step of a job; no row when the job is no step. Locks nothing.
-- Run in the process that performs the job, when its function asks. Indexes: steps_pkey, workflows_pkey.
SELECT w.id, w.name, s.name AS step, w.context
FROM opsjobs.steps s JOIN opsjobs.workflows w ON w.id = s.workflow_id
WHERE s.job_id = %(id)s
