-- Starts attempts of limited jobs of one bucket, takes their tokens and leases, and returns the jobs, in any
-- order. One that is `available` was not dispatched: it gets its dispatch number here. When the token comes
-- within a moment, a job is claimed ahead, by as many seconds as %(waits)s says, and `started_at` is the time
-- at which the token comes. The caller has locked the jobs and the bucket and has checked them. Counts are
-- appended as counter rows, so that transactions of different partitions never wait for each other.
-- Rows: opsjobs, by their limiters.
-- Run by the claim of limited jobs. Indexes: jobs_pkey, buckets_pkey.
WITH taken AS (
    UPDATE opsjobs.jobs j
    SET state = 'started', attempt = j.attempt + 1, worker_id = %(worker_id)s, failed_deliveries = 0,
        dispatch_no = j.dispatch_no + (j.state = 'available')::int,
        dispatched_at = CASE j.state WHEN 'available' THEN %(now)s::timestamptz ELSE j.dispatched_at END,
        started_at = %(now)s::timestamptz + n.wait * interval '1 s', error = NULL
    FROM unnest(%(ids)s::bigint[], %(waits)s::float8[]) AS n(id, wait)
    WHERE j.id = n.id AND j.state IN ('available', 'queued')
    RETURNING j.*
), noted AS (
    INSERT INTO opsjobs.attempts (job_id, dispatch_no, attempt, worker_id, worker, started_at)
    SELECT id, dispatch_no, attempt, worker_id, %(worker)s, started_at FROM taken
), leased AS (
    INSERT INTO opsjobs.leases (job_id, dispatch_no, limiter, partition, weight, taken_at)
    SELECT id, dispatch_no, limiter, partition, weight, %(now)s FROM taken
), spent AS (
    UPDATE opsjobs.buckets b
    SET tokens = %(tokens)s::float8, last_used_at = %(now)s, admitted = b.admitted + t.number,
        refilled_at = CASE WHEN %(tokens)s::float8 IS NOT NULL THEN %(now)s::timestamptz END
    FROM (SELECT limiter, partition, count(*) AS number FROM taken GROUP BY limiter, partition) AS t
    WHERE b.limiter = t.limiter AND b.partition = t.partition
), counted AS (
    INSERT INTO opsjobs.limit_count_deltas (at, limiter, admitted)
    SELECT %(now)s, limiter, count(*) FROM taken GROUP BY limiter
)
SELECT t.id, t.dispatch_no, t.task, t.queue, t.args::text AS args, t.meta, t.tags, t.attempt, t.max_attempts,
    t.timeout_seconds, t.deadline_at, t.created_at, t.started_at AS now
FROM taken t
