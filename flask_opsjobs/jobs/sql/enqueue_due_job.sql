-- Enqueues a job that is due now, without a limit. Returns its id and state. It becomes `available`. With a
-- dispatch_no above 0 it becomes `queued` instead, and the caller pushes it to Redis after the host has
-- committed. In a queue that is paused or drains, or of a paused task, it always becomes `available`: the
-- caller chose the number before it could know that. Locks nothing: the counter is an appended row, which
-- blocks no other transaction and which a rollback removes.
-- Rows: opsjobs, which it inserts.
-- Run in the host's transaction by `enqueue`. It is the statement of most jobs, so it takes only what they
-- need: each parameter costs both sides time. Uses statement_timestamp(), since now() stands still in a
-- transaction. OFFSET 0 lets the queue be read once. Indexes: queues_pkey,
-- task_pauses_pkey.
WITH counted AS (
    INSERT INTO opsjobs.job_count_deltas (at, queue, enqueued, task)
    VALUES (statement_timestamp(), %(queue)s, 1, %(task)s)
)
INSERT INTO opsjobs.jobs (task, queue, lane, state, priority, args, meta, tags, max_attempts, timeout_seconds,
    deadline_at, created_at, due_at, dispatch_no, dispatched_at, batch_id{traced:, traceparent, tracestate})
SELECT %(task)s, %(queue)s, %(queue)s, CASE no WHEN 0 THEN 'available' ELSE 'queued' END,
    %(priority)s::smallint, %(args)s::jsonb, %(meta)s::jsonb, %(tags)s::text[], %(max_attempts)s::int,
    %(timeout_seconds)s::int, statement_timestamp() + %(deadline)s::interval, statement_timestamp(),
    statement_timestamp(), no, CASE WHEN no > 0 THEN statement_timestamp() END, %(batch_id)s::bigint
    {traced:, %(traceparent)s::text, %(tracestate)s::text}
FROM (
    SELECT CASE WHEN EXISTS (SELECT FROM opsjobs.queues WHERE name = %(queue)s AND is_paused)
        OR EXISTS (SELECT FROM opsjobs.task_pauses p WHERE p.task = %(task)s) THEN 0
        ELSE %(dispatch_no)s::bigint END AS no
    OFFSET 0
) AS first
RETURNING id, state
