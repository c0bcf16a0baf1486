-- Releases steps that wait for nothing any more: their jobs become due, after the delay of the step, and
-- their deadlines begin. %(args)s are the arguments with the results of other steps, or null.
-- Returns the lane and queue of each job that is due now. Locks the jobs in id order. A step whose job was
-- ended at the same moment is not released: if it is retried, it is released then, with its arguments.
-- The caller holds the run's lock.
-- Run by `advance`. Indexes: steps_pkey, jobs_pkey.
WITH named AS MATERIALIZED (
    SELECT id, args::jsonb AS args FROM unnest(%(ids)s::bigint[], %(args)s::text[]) AS n(id, args)
), locked AS MATERIALIZED (
    SELECT j.id, n.args FROM opsjobs.jobs j JOIN named n USING (id) WHERE j.state = 'deferred'
    ORDER BY j.id FOR UPDATE OF j
), released AS (
    UPDATE opsjobs.steps s SET released_at = %(now)s FROM locked l WHERE s.job_id = l.id
    RETURNING s.job_id AS id, s.deadline_seconds, l.args,
        %(now)s::timestamptz + coalesce(s.delay_seconds, 0) * interval '1 s' AS due_at
)
UPDATE opsjobs.jobs j SET args = coalesce(r.args, j.args), due_at = r.due_at,
    state = CASE WHEN r.due_at > %(now)s THEN 'scheduled' ELSE 'available' END,
    deadline_at = r.due_at + r.deadline_seconds * interval '1 s'
FROM released r WHERE j.id = r.id
RETURNING j.lane, j.queue, j.state = 'available' AS is_due
