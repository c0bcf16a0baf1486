-- Finds for each of these runs one released step that has not ended, the one that is most likely to hold the
-- run up, with a step that waits for it, and how many there are. %(states)s are the states of such steps in
-- that order. At most %(examined)s of the jobs and as many of the waits of a run are examined. Locks nothing.
-- Rows: opsjobs, by their runs.
-- Run by the page of workflows. Indexes: jobs_of_run, steps_open_waits_of_run, jobs_pkey, steps_pkey,
-- edges_pkey.
SELECT run.id AS run, step.id, step.name, step.kind, step.state, step.attempt, step.max_attempts, step.due_at,
    step.started_at, step.deadline_at, step.signals, step.key, step.opened_at, (
        SELECT w.name FROM opsjobs.edges e JOIN opsjobs.steps w ON w.job_id = e.to_id
        WHERE e.from_id = step.id ORDER BY e.from_id, e.to_id LIMIT 1
    ) AS waiting, step.released
FROM unnest(%(ids)s::bigint[]) AS run (id) CROSS JOIN LATERAL (
    SELECT s.job_id AS id, s.name, s.kind, j.state, j.attempt, j.max_attempts, j.due_at, j.started_at,
        j.deadline_at, s.signals, s.key, s.opened_at, count(*) OVER () AS released
    FROM (
        (SELECT id FROM opsjobs.jobs
         WHERE workflow_id = run.id AND state IN ('retryable', 'scheduled', 'available', 'queued', 'started')
         LIMIT %(examined)s)
        UNION ALL
        (SELECT job_id FROM opsjobs.steps
         WHERE workflow_id = run.id AND is_wait_left AND opened_at IS NOT NULL LIMIT %(examined)s)
    ) AS released (id) JOIN opsjobs.jobs j ON j.id = released.id JOIN opsjobs.steps s ON s.job_id = j.id
    WHERE j.state NOT IN ('finished', 'failed', 'canceled')
    ORDER BY array_position(%(states)s::text[], j.state), s.job_id
    LIMIT 1
) AS step
