-- Enqueues a job that reports an end of a run or a batch, once per end and event. Its task and options were
-- stored when the run or batch began, so that its end needs no code of the host. Returns its lane and queue;
-- no row when this end was reported before.
-- Rows: opsjobs, which it inserts.
-- Run with the end, in the same transaction. Index: callbacks_pkey.
WITH told AS (
    INSERT INTO opsjobs.callbacks (of, of_id, end_no, event, job_id)
    VALUES (%(of)s, %(of_id)s, %(end_no)s, %(event)s, nextval('opsjobs.jobs_id_seq'))
    ON CONFLICT DO NOTHING
    RETURNING job_id
), counted AS (
    INSERT INTO opsjobs.job_count_deltas (at, queue, enqueued, task)
    SELECT %(now)s, %(queue)s, 1, %(task)s FROM told
)
INSERT INTO opsjobs.jobs (id, task, queue, lane, state, priority, args, meta, tags, max_attempts,
    timeout_seconds, deadline_at, created_at, due_at, limiter, partition, weight
    {traced:, traceparent, tracestate})
SELECT job_id, %(task)s, %(queue)s, %(lane)s, 'available', %(priority)s, %(args)s::jsonb, %(meta)s::jsonb,
    %(tags)s::text[], %(max_attempts)s, %(timeout_seconds)s,
    %(now)s::timestamptz + %(deadline_seconds)s * interval '1 s', %(now)s, %(now)s,
    %(limiter)s, %(partition)s, %(weight)s{traced:, %(traceparent)s::text, %(tracestate)s::text}
FROM told
RETURNING lane, queue
