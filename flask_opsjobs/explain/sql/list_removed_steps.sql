-- Lists unsettled steps of a run whose jobs were deleted: the advance loop will settle them. Locks nothing.
-- A subquery per step, because a join would read all jobs of other runs too.
-- Rows: opsjobs, by their runs.
-- Run by explanations. Indexes: steps_name_key, jobs_pkey.
SELECT name FROM opsjobs.steps s
WHERE workflow_id = %(run)s AND settled IS NULL
  AND (SELECT id FROM opsjobs.jobs j WHERE j.id = s.job_id) IS NULL
ORDER BY job_id LIMIT %(most)s
