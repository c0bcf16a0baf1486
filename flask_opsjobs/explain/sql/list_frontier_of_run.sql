-- Lists unfinished steps of a run that wait for no other step, the one that most likely holds the run up
-- first, each with what decides of its job and the first step that waits for it. %(states)s are the states of
-- unfinished steps in that order; steps that wait to be released come last. LATERAL and OFFSET 0 make each
-- step look at its own rows. Locks nothing.
-- Rows: opsjobs, by their runs.
-- Run by explanations. Indexes: jobs_of_run, steps_pkey, edges_by_target, edges_pkey, jobs_pkey.
SELECT j.*, step.name, (
    SELECT w.name FROM opsjobs.edges e JOIN opsjobs.steps w ON w.job_id = e.to_id
    WHERE e.from_id = j.id ORDER BY e.from_id, e.to_id LIMIT 1) AS waiting
FROM {job_evidence.sql} AS j
CROSS JOIN LATERAL (
    SELECT WHERE NOT EXISTS (
        SELECT FROM opsjobs.edges e JOIN opsjobs.jobs p ON p.id = e.from_id AND p.ended_at IS NULL
        WHERE e.to_id = j.id) OFFSET 0) AS first
CROSS JOIN LATERAL (
    SELECT s.name, s.opened_at FROM opsjobs.steps s WHERE s.job_id = j.id OFFSET 0) AS step
WHERE j.workflow_id = %(run)s AND j.state = ANY (%(states)s::text[])
ORDER BY j.state = 'deferred' AND step.opened_at IS NULL, array_position(%(states)s::text[], j.state), j.id
LIMIT %(most)s
