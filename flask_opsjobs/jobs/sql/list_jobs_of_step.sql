-- Lists the jobs of the steps of this name in these workflows, at most one of each. Locks nothing.
-- Run by the search for jobs. Index: steps_name_key.
SELECT step.job_id FROM unnest(%(workflows)s::bigint[]) AS wanted (id) CROSS JOIN LATERAL (
    SELECT job_id FROM opsjobs.steps s WHERE s.workflow_id = wanted.id AND s.name = %(name)s LIMIT 1
) AS step
