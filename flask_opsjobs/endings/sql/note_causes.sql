-- Notes which step caused others to be canceled. The caller holds the run's lock.
-- Run by `advance`. Index: steps_pkey.
UPDATE opsjobs.steps s SET settled_by = n.cause
FROM unnest(%(ids)s::bigint[], %(causes)s::bigint[]) AS n(id, cause)
WHERE s.job_id = n.id AND s.job_id = ANY (%(ids)s::bigint[])
