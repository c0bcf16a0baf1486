-- Enqueues a job at any time, with or without a limit. Returns its id and state. The job is due at
-- scheduled_at, or after the delay. A job that is due now becomes `available`. A `deferred` job waits for
-- the job of its cron entry that has not ended. Locks nothing: the counter is an appended row, which blocks
-- no other transaction and which a rollback removes.
-- Rows: opsjobs, which it inserts.
-- Run in the host's transaction by `enqueue`, and by the cron loop. Uses clock_timestamp(), since now()
-- stands still in a transaction.
WITH counted AS (
    INSERT INTO opsjobs.job_count_deltas (at, queue, enqueued, task)
    VALUES (clock_timestamp(), %(queue)s, 1, %(task)s)
)
INSERT INTO opsjobs.jobs (task, queue, lane, state, priority, args, meta, tags,
    max_attempts, timeout_seconds,
    deadline_at, created_at, due_at, limiter, partition, weight, cron_entry,
    batch_id{traced:, traceparent, tracestate})
SELECT %(task)s, %(queue)s, %(lane)s,
    CASE WHEN %(is_deferred)s THEN 'deferred' WHEN at > now THEN 'scheduled' ELSE 'available' END,
    %(priority)s::smallint, %(args)s::jsonb, %(meta)s::jsonb, %(tags)s::text[],
    %(max_attempts)s::int, %(timeout_seconds)s::int, at + %(deadline)s::interval, now, at,
    %(limiter)s::text, %(partition)s::text, %(weight)s::int, %(cron_entry)s::text,
    %(batch_id)s::bigint{traced:, %(traceparent)s::text, %(tracestate)s::text}
FROM (
    SELECT now, coalesce(%(scheduled_at)s::timestamptz, now + %(delay)s::interval) AS at
    FROM (SELECT clock_timestamp() AS now) AS moment
) AS due
RETURNING id, state
