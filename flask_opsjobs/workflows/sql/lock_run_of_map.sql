-- Locks the run of a map, and reads what its expansion needs; no row when the step is gone. Waits for one who
-- advances the run.
-- Run by the job of a map. Indexes: steps_pkey, workflows_pkey.
SELECT s.job_id AS id, w.id AS run, w.state, w.steps, s.name, s.settled, s.expanded_at, s.may_fail,
    clock_timestamp() AS now
FROM opsjobs.steps s JOIN opsjobs.workflows w ON w.id = s.workflow_id
WHERE s.job_id = %(id)s
FOR NO KEY UPDATE OF w
