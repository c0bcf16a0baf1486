-- Enqueues each gathered call that gets all its unique locks. Returns the number of enqueued jobs. Of rows
-- with the same keys the first wins. Inserts the keys in order, so that two calls cannot deadlock. The insert
-- of a unique lock waits for another transaction that inserts the same key, as in enqueue_unique_job.
-- Rows: opsjobs, which it inserts.
-- Run in the host's transaction, in a savepoint, by `enqueue_many`. Index: unique_locks_pkey.
WITH first AS MATERIALIZED (
    SELECT DISTINCT ON (k.key) decode(k.key, 'hex') AS key, c.id
    FROM {calls} c, unnest(c.keys) AS k(key) ORDER BY k.key, c.n
), taken AS (
    INSERT INTO opsjobs.unique_locks (key, job_id, until, expires_at, created_at)
    SELECT key, id, %(until)s, %(created_at)s::timestamptz + %(within)s::interval, %(created_at)s::timestamptz
    FROM first ORDER BY key
    ON CONFLICT (key) DO NOTHING
    RETURNING job_id
), whole AS (
    SELECT job_id AS id FROM taken GROUP BY job_id HAVING count(*) = %(key_count)s
), inserted AS (
    INSERT INTO opsjobs.jobs (id, task, queue, lane, state, priority, meta, tags,
        max_attempts, timeout_seconds,
        deadline_at, created_at, due_at, args, unique_key, unique_until, limiter, partition, weight,
        batch_id{traced:, traceparent, tracestate})
    SELECT c.id, %(task)s, %(queue)s, c.lane, %(state)s, %(priority)s::smallint,
        %(meta)s::jsonb, %(tags)s::text[],
        %(max_attempts)s::int, %(timeout_seconds)s::int, %(deadline_at)s::timestamptz,
        %(created_at)s::timestamptz,
        %(due_at)s::timestamptz, c.args, decode(c.keys[1], 'hex'), %(until)s::text,
        c.limiter, c.partition, c.weight, %(batch_id)s::bigint
        {traced:, %(traceparent)s::text, %(tracestate)s::text}
    FROM {calls} c JOIN whole USING (id) ORDER BY c.n
    RETURNING id
), counted AS (
    INSERT INTO opsjobs.job_count_deltas (at, queue, enqueued, task)
    SELECT clock_timestamp(), %(queue)s, count(*), %(task)s FROM inserted HAVING count(*) > 0
)
SELECT count(*) FROM inserted
