-- Opens waits: from now on a signal ends them, and their time runs.
-- The caller holds the run's lock.
-- Run by `advance`. Indexes: steps_pkey, jobs_pkey.
WITH opened AS (
    UPDATE opsjobs.steps SET released_at = %(now)s, opened_at = %(now)s
    WHERE job_id = ANY (%(ids)s::bigint[])
    RETURNING job_id AS id, %(now)s::timestamptz + timeout_seconds * interval '1 s' AS until
)
UPDATE opsjobs.jobs j SET deadline_at = o.until, due_at = %(now)s FROM opened o
WHERE j.id = o.id AND j.state = 'deferred'
