-- Opens waits: from now on a signal ends them, and their time runs. Locks the jobs in id order. A wait whose
-- job was ended at the same moment is not opened.
-- The caller holds the run's lock.
-- Run by `advance`. Indexes: steps_pkey, jobs_pkey.
WITH locked AS MATERIALIZED (
    SELECT id FROM opsjobs.jobs WHERE id = ANY (%(ids)s::bigint[]) AND state = 'deferred'
    ORDER BY id FOR UPDATE
), opened AS (
    UPDATE opsjobs.steps s SET released_at = %(now)s, opened_at = %(now)s
    FROM locked l WHERE s.job_id = l.id
    RETURNING s.job_id AS id, %(now)s::timestamptz + s.timeout_seconds * interval '1 s' AS until
)
UPDATE opsjobs.jobs j SET deadline_at = o.until, due_at = %(now)s FROM opened o WHERE j.id = o.id
