-- Lists steps of a run that wait for nothing any more although no end of a step says so: those that never
-- waited for a step, and those that an operator reopened. Returns one row, by what their release needs.
-- The caller holds the run's lock.
-- Run by `advance`. Index: steps_overlooked.
WITH found AS MATERIALIZED (
    SELECT job_id, kind = 'wait' AS is_wait, takes IS NOT NULL AS takes_results FROM opsjobs.steps
    WHERE workflow_id = %(id)s AND is_overlooked ORDER BY job_id LIMIT %(limit)s
)
SELECT (SELECT count(*) FROM found) AS number,
    ARRAY(SELECT job_id FROM found WHERE NOT is_wait AND NOT takes_results) AS plain,
    ARRAY(SELECT job_id FROM found WHERE takes_results) AS taking,
    ARRAY(SELECT job_id FROM found WHERE is_wait) AS waits
