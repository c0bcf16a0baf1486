-- Reserves the jobs of deliveries that a worker popped from RQ. Returns a row for each delivery: why it is
-- not valid (`why_not`), else whether its job is limited, else the job itself: a limited job is claimed only
-- when a child is idle. Accepts what the worker itself has reserved already, because the answer of an
-- earlier call may have been lost. Commits asynchronously: the number of a delivery is durable, and a
-- reservation that a crash forgets is a delivery that is recalled.
-- Rows: opsjobs, by origin.
-- Run by a worker's taker. Index: jobs_pkey.
WITH hurried AS MATERIALIZED (
    SELECT set_config('synchronous_commit', 'off', true)
), moment AS MATERIALIZED (
    SELECT clock_timestamp() AS now FROM hurried
), popped AS MATERIALIZED (
    SELECT id, dispatch_no
    FROM unnest(%(ids)s::bigint[], %(dispatch_nos)s::bigint[]) AS p(id, dispatch_no)
), locked AS MATERIALIZED (
    SELECT j.id, j.limiter IS NOT NULL AS is_limited
    FROM opsjobs.jobs j JOIN popped p USING (id)
    WHERE j.dispatch_no = p.dispatch_no AND j.state = 'queued' AND j.origin = 'opsjobs'
        AND coalesce(j.reserved_by, %(worker_id)s) = %(worker_id)s
    ORDER BY j.id FOR UPDATE OF j
), reserved AS (
    UPDATE opsjobs.jobs j SET reserved_by = %(worker_id)s, dispatched_at = m.now
    FROM locked l, moment m WHERE j.id = l.id AND NOT l.is_limited
    RETURNING j.id, j.dispatch_no, j.queue, j.task, j.args::text AS args, j.meta::text AS meta, j.tags,
        j.priority, extract(epoch FROM j.due_at)::float8 AS due_at, j.attempt + 1 AS attempt, j.max_attempts,
        j.timeout_seconds, extract(epoch FROM j.deadline_at)::float8 AS deadline_at,
        extract(epoch FROM j.created_at)::float8 AS created_at, j.lost_reservations,
        extract(epoch FROM m.now)::float8 AS taken_at
)
SELECT p.id AS popped_id, p.dispatch_no AS popped_no, coalesce(l.is_limited, false) AS is_limited,
    CASE WHEN l.id IS NOT NULL THEN NULL WHEN j.id IS NULL THEN 'no_row'
        WHEN j.dispatch_no <> p.dispatch_no THEN 'dispatched_again' ELSE 'not_queued' END AS why_not,
    r.id, r.dispatch_no, r.queue, r.task, r.args, r.meta, r.tags, r.priority, r.due_at, r.attempt,
    r.max_attempts, r.timeout_seconds, r.deadline_at, r.created_at, r.lost_reservations, r.taken_at
FROM popped p LEFT JOIN locked l USING (id)
LEFT JOIN (SELECT * FROM opsjobs.jobs WHERE origin = 'opsjobs') AS j USING (id)
LEFT JOIN reserved r USING (id)
