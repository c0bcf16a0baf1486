-- Lists the oldest unfinished steps of a run that wait for no other step. Locks nothing.
-- Run by explanations. Indexes: jobs_of_run, steps_pkey, edges_by_target, jobs_pkey.
SELECT j.id, s.name FROM opsjobs.jobs j JOIN opsjobs.steps s ON s.job_id = j.id
WHERE j.workflow_id = %(run)s AND j.ended_at IS NULL AND NOT EXISTS (
    SELECT FROM opsjobs.edges e JOIN opsjobs.jobs p ON p.id = e.from_id AND p.ended_at IS NULL
    WHERE e.to_id = j.id)
ORDER BY j.id LIMIT %(most)s
