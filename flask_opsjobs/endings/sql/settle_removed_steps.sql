-- Settles as canceled the steps of a canceled run whose jobs were deleted: nothing else would end them.
-- Returns one row: how many. A subquery per step, because a join would read all jobs of other runs too.
-- The caller holds the run's lock.
-- Run by `advance` when no step is left to stop. Indexes: steps_name_key, jobs_pkey, steps_pkey,
-- workflows_pkey.
WITH removed AS MATERIALIZED (
    SELECT job_id FROM opsjobs.steps s
    WHERE workflow_id = %(id)s AND settled IS NULL
      AND (SELECT id FROM opsjobs.jobs j WHERE j.id = s.job_id) IS NULL
    LIMIT %(limit)s
), settled AS (
    UPDATE opsjobs.steps s SET settled = 'canceled', settled_at = %(now)s
    FROM removed r WHERE s.job_id = r.job_id
), counted AS (
    UPDATE opsjobs.workflows w SET settled = w.settled + n.number, canceled = w.canceled + n.number
    FROM (SELECT count(*) AS number FROM removed) AS n WHERE w.id = %(id)s AND n.number > 0
)
SELECT count(*) AS number FROM removed
