-- Lists steps of a canceled run that have not ended and whose workers were not asked to stop them.
-- The caller holds the run's lock.
-- Run by `advance`. Index: jobs_of_run.
SELECT j.id, j.state
FROM opsjobs.jobs j JOIN opsjobs.steps s ON s.job_id = j.id
WHERE j.workflow_id = %(id)s AND j.ended_at IS NULL
  AND (j.state <> 'started' OR j.cancel_requested_at IS NULL)
ORDER BY j.id LIMIT %(limit)s
