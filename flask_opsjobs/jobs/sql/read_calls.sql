-- Reads what jobs call, for an edit: their arguments, tags and limits. `takes_results`: some of the arguments
-- are results of other steps, or an element of one. Locks nothing.
-- Rows: opsjobs, by origin.
-- Run by actions, first for the preview and again under the lock. Indexes: jobs_pkey, steps_pkey.
SELECT j.id, j.args, j.tags, j.limiter, j.partition, j.weight,
    coalesce(s.takes <> '{}' OR s.kind = 'member', false) AS takes_results
FROM opsjobs.jobs j LEFT JOIN opsjobs.steps s ON s.job_id = j.id
WHERE j.id = ANY (%(ids)s::bigint[]) AND j.origin = 'opsjobs'
