-- Releases steps that wait for nothing any more: their jobs become due, after the delay of the step, and
-- their deadlines begin. %(args)s are the arguments of the steps %(taking)s, with the results of other steps.
-- Returns the lanes and queues with jobs that are due now. Locks the jobs in id order. A step whose job was
-- ended at the same moment is not released: if it is retried, it is released then, with its arguments.
-- The caller holds the run's lock.
-- Rows: opsjobs, by their runs.
-- Run by `advance`. Indexes: steps_pkey, jobs_pkey.
WITH locked AS MATERIALIZED (
    SELECT id FROM opsjobs.jobs WHERE id = ANY (%(ids)s::bigint[]) AND state = 'deferred'
    ORDER BY id FOR UPDATE
), ready AS (
    UPDATE opsjobs.steps s SET pending = 0,
        released_at = CASE WHEN s.job_id IN (SELECT id FROM locked) THEN %(now)s::timestamptz END
    WHERE s.job_id = ANY (%(ids)s::bigint[])
    RETURNING s.job_id AS id, s.released_at, s.deadline_seconds,
        s.released_at + coalesce(s.delay_seconds, 0) * interval '1 s' AS due_at
), released AS (
    UPDATE opsjobs.jobs j SET args = coalesce(n.args::jsonb, j.args), due_at = r.due_at,
        state = CASE WHEN r.due_at > %(now)s THEN 'scheduled' ELSE 'available' END,
        deadline_at = r.due_at + r.deadline_seconds * interval '1 s'
    FROM ready r LEFT JOIN unnest(%(taking)s::bigint[], %(args)s::text[]) AS n(id, args) USING (id)
    WHERE j.id = r.id AND r.released_at IS NOT NULL
    RETURNING j.lane, j.queue, j.state
)
SELECT DISTINCT lane, queue FROM released WHERE state = 'available'
