-- Enqueues a new job, due now, for each final job: the same call with the same options but no deadline, and a
-- link to the old job. Returns (new id, old id, trace context of the old job). New jobs of %(guarded)s need a
-- unique lock, which the caller takes next. The caller has locked the old rows. Counts the new jobs as
-- enqueued, for the integrity check. Without a trace context of their own, they have that of the old ones.
-- Rows: opsjobs, by origin.
-- Run by actions. Index: jobs_pkey.
WITH inserted AS (
    INSERT INTO opsjobs.jobs (task, queue, lane, state, priority, args, meta, tags,
        max_attempts, timeout_seconds, created_at, due_at, unique_key, unique_until, run_again_from,
        limiter, partition, weight, traceparent, tracestate)
    SELECT task, queue, lane, 'available', priority, args, meta, tags, max_attempts, timeout_seconds,
        %(now)s, %(now)s, CASE WHEN id = ANY (%(guarded)s::bigint[]) THEN unique_key END,
        CASE WHEN id = ANY (%(guarded)s::bigint[]) THEN unique_until END, id,
        limiter, partition, weight, coalesce(%(traceparent)s::text, traceparent),
        CASE WHEN %(traceparent)s::text IS NULL THEN tracestate ELSE %(tracestate)s::text END
    FROM opsjobs.jobs
    WHERE id = ANY (%(ids)s::bigint[]) AND state = ANY (%(sources)s::text[]) AND origin = 'opsjobs'
    ORDER BY id
    RETURNING id, run_again_from, queue, task
), counted AS (
    INSERT INTO opsjobs.job_count_deltas (at, queue, enqueued, task)
    SELECT %(now)s, queue, count(*), task FROM inserted GROUP BY queue, task
)
SELECT i.id, i.run_again_from, old.traceparent, old.tracestate
FROM inserted i JOIN opsjobs.jobs old ON old.id = i.run_again_from AND old.origin = 'opsjobs'
