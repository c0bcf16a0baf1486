-- Opens waits: from now on a signal ends them, and their time runs. Locks the jobs in id order. A wait whose
-- job was ended at the same moment is not opened.
-- The caller holds the run's lock.
-- Rows: opsjobs, by their runs.
-- Run by `advance`. Indexes: steps_pkey, jobs_pkey.
WITH locked AS MATERIALIZED (
    SELECT id FROM opsjobs.jobs WHERE id = ANY (%(ids)s::bigint[]) AND state = 'deferred'
    ORDER BY id FOR UPDATE
), opened AS (
    UPDATE opsjobs.steps s SET pending = 0, released_at = w.opened_at, opened_at = w.opened_at
    FROM (SELECT n.id, CASE WHEN l.id IS NOT NULL THEN %(now)s::timestamptz END AS opened_at
        FROM unnest(%(ids)s::bigint[]) AS n(id) LEFT JOIN locked l USING (id)) AS w
    WHERE s.job_id = w.id
    RETURNING s.job_id AS id, s.opened_at + s.timeout_seconds * interval '1 s' AS until, s.opened_at
)
UPDATE opsjobs.jobs j SET deadline_at = o.until, due_at = %(now)s
FROM opened o WHERE j.id = o.id AND o.opened_at IS NOT NULL
