-- Lists steps of a run that wait for nothing any more, in id order.
-- The caller holds the run's lock.
-- Run by `advance`. Index: steps_overlooked.
SELECT job_id AS id, kind, takes IS NOT NULL AS takes_results FROM opsjobs.steps
WHERE workflow_id = %(id)s AND pending = 0 AND released_at IS NULL AND settled IS NULL
ORDER BY job_id LIMIT %(limit)s
