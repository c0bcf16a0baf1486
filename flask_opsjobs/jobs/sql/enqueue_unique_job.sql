-- Enqueues a job unless a unique lock with one of its keys exists. Returns id and state. When state is null,
-- the job was not enqueued and the caller must delete the unique locks that bear this id, if there are any.
-- The insert of a unique lock waits for another transaction that inserts the same key. If the other
-- transaction commits, this statement finds its lock and enqueues nothing; if the other rolls back, this
-- statement continues. Inserts the keys in order, so that two calls cannot deadlock. Does not lock the row of
-- an existing unique lock: the end of that job must not wait for the host's transaction.
-- Rows: opsjobs, which it inserts.
-- Run in the host's transaction by `enqueue`. Index: unique_locks_pkey.
WITH moment AS MATERIALIZED (
    SELECT clock_timestamp() AS now, nextval('opsjobs.jobs_id_seq') AS id
), due AS MATERIALIZED (
    SELECT *, coalesce(%(scheduled_at)s::timestamptz, now + %(delay)s::interval) AS at FROM moment
), taken AS (
    INSERT INTO opsjobs.unique_locks (key, job_id, until, expires_at, created_at)
    SELECT k.key, id, %(until)s, now + %(within)s::interval, now
    FROM due, unnest(%(keys)s::bytea[]) AS k(key) ORDER BY k.key
    ON CONFLICT (key) DO NOTHING
    RETURNING key
), inserted AS (
    INSERT INTO opsjobs.jobs (id, task, queue, lane, state, priority, args, meta, tags,
        max_attempts, timeout_seconds,
        deadline_at, created_at, due_at, unique_key, unique_until, limiter, partition, weight, cron_entry,
        batch_id{traced:, traceparent, tracestate})
    SELECT id, %(task)s, %(queue)s, %(lane)s,
        CASE WHEN %(is_deferred)s THEN 'deferred' WHEN at > now THEN 'scheduled' ELSE 'available' END,
        %(priority)s::smallint, %(args)s::jsonb, %(meta)s::jsonb, %(tags)s::text[], %(max_attempts)s::int,
        %(timeout_seconds)s::int, at + %(deadline)s::interval, now, at, (%(keys)s::bytea[])[1],
        %(until)s::text, %(limiter)s::text, %(partition)s::text, %(weight)s::int, %(cron_entry)s::text,
        %(batch_id)s::bigint{traced:, %(traceparent)s::text, %(tracestate)s::text}
    FROM due WHERE (SELECT count(*) FROM taken) = cardinality(%(keys)s::bytea[])
    RETURNING id, state
), counted AS (
    INSERT INTO opsjobs.job_count_deltas (at, queue, enqueued, task)
    SELECT now, %(queue)s, 1, %(task)s FROM moment
    WHERE EXISTS (SELECT FROM inserted)
)
SELECT due.id, inserted.state FROM due LEFT JOIN inserted USING (id)
