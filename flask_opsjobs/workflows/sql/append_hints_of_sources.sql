-- Appends an end event of the steps in front of reopened ones that did not finish: the next `advance` cancels
-- a reopened step again that can still not run. The caller holds the run's lock.
-- Run by actions. Indexes: edges_by_target, steps_pkey.
INSERT INTO opsjobs.workflow_end_events (workflow_id, job_ids)
SELECT %(run)s, array_agg(DISTINCT f.job_id)
FROM opsjobs.edges e JOIN opsjobs.steps f ON f.job_id = e.from_id
WHERE e.to_id = ANY (%(ids)s::bigint[]) AND e.on_failure = 'cancel' AND f.settled IN ('failed', 'canceled')
HAVING count(*) > 0
