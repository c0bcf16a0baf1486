-- Lists the oldest unfinished steps of a run that wait for no other step, each with the first step that waits
-- for it. Locks nothing.
-- Run by explanations. Indexes: jobs_of_run, steps_pkey, edges_by_target, edges_pkey, jobs_pkey.
SELECT j.id, s.name, (
    SELECT w.name FROM opsjobs.edges e JOIN opsjobs.steps w ON w.job_id = e.to_id
    WHERE e.from_id = j.id ORDER BY e.from_id, e.to_id LIMIT 1) AS waiting
FROM opsjobs.jobs j JOIN opsjobs.steps s ON s.job_id = j.id
WHERE j.workflow_id = %(run)s AND j.ended_at IS NULL AND NOT EXISTS (
    SELECT FROM opsjobs.edges e JOIN opsjobs.jobs p ON p.id = e.from_id AND p.ended_at IS NULL
    WHERE e.to_id = j.id)
ORDER BY j.id LIMIT %(most)s
