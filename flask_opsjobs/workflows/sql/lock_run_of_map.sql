-- Locks the run of a map; no row when the step is gone. Waits for one who advances the run. What the
-- expansion needs is read by the next statement: this one would read the step as it was before the wait.
-- Run by the job of a map. Indexes: steps_pkey, workflows_pkey.
SELECT w.id FROM opsjobs.steps s JOIN opsjobs.workflows w ON w.id = s.workflow_id
WHERE s.job_id = %(id)s
FOR NO KEY UPDATE OF w
