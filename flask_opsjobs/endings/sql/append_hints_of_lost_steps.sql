-- Looks at the next %(limit)s steps of open runs after a step, and appends end events of those that have
-- not settled and whose jobs were deleted by SQL: they are lost, and `advance` settles them as failed. A step
-- and its job are written together, so there is no other step without a job. Returns the last step that it
-- looked at; no row after the last step of the last open run.
-- Bounded, because a run may have 50,000 steps, and seldom is one lost. A subquery per step, because a join
-- would read all jobs. Locks nothing.
-- Rows: opsjobs, by their runs.
-- Run by the advance loop, in turns. Indexes: workflows_by_state, steps_name_key, jobs_pkey.
WITH run AS MATERIALIZED (
    (SELECT id FROM opsjobs.workflows
     WHERE state = 'running' AND id >= %(run)s ORDER BY state, id LIMIT %(limit)s)
    UNION ALL
    (SELECT id FROM opsjobs.workflows
     WHERE state = 'canceling' AND id >= %(run)s ORDER BY state, id LIMIT %(limit)s)
    ORDER BY id LIMIT %(limit)s
), step AS MATERIALIZED (
    SELECT next.* FROM run CROSS JOIN LATERAL (
        SELECT workflow_id, name, job_id, settled FROM opsjobs.steps s
        WHERE s.workflow_id = run.id AND (s.workflow_id, s.name) > (%(run)s, %(name)s)
        ORDER BY s.workflow_id, s.name LIMIT %(limit)s) AS next
    LIMIT %(limit)s
), lost AS (
    INSERT INTO opsjobs.workflow_end_events (workflow_id, job_ids)
    SELECT workflow_id, array_agg(job_id) FROM step s
    WHERE settled IS NULL AND (SELECT id FROM opsjobs.jobs j WHERE j.id = s.job_id) IS NULL
    GROUP BY workflow_id
)
SELECT workflow_id AS run, name FROM step ORDER BY workflow_id DESC, name DESC LIMIT 1
