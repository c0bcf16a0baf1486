-- Starts the attempt of a limited job, takes its tokens and its lease, and returns the job. When the token
-- comes within a moment, the job is claimed %(wait)s seconds ahead, and `started_at` is the time at which the
-- token comes. The caller has locked the job and the bucket and has checked both. Counts are appended as
-- counter rows, so that transactions of different partitions never wait for each other.
-- Run by a worker's parent before the fork. Indexes: jobs_pkey, buckets_pkey.
WITH taken AS (
    UPDATE opsjobs.jobs
    SET state = 'started', attempt = attempt + 1,
        worker_id = %(worker_id)s, failed_deliveries = 0,
        started_at = %(now)s::timestamptz + %(wait)s * interval '1 s', error = NULL
    WHERE id = %(id)s AND state = 'queued' AND dispatch_no = %(dispatch_no)s
    RETURNING *
), noted AS (
    INSERT INTO opsjobs.attempts (job_id, dispatch_no, attempt, worker_id, worker, started_at)
    SELECT id, dispatch_no, attempt, worker_id, %(worker)s, started_at FROM taken
), leased AS (
    INSERT INTO opsjobs.leases (job_id, dispatch_no, limiter, partition, weight, taken_at)
    SELECT id, dispatch_no, limiter, partition, weight, %(now)s FROM taken
), spent AS (
    UPDATE opsjobs.buckets b
    SET tokens = %(tokens)s::float8, last_used_at = %(now)s, admitted = b.admitted + 1,
        refilled_at = CASE WHEN %(tokens)s::float8 IS NOT NULL THEN %(now)s::timestamptz END
    FROM taken t WHERE b.limiter = t.limiter AND b.partition = t.partition
), counted AS (
    INSERT INTO opsjobs.limit_count_deltas (at, limiter, admitted) SELECT %(now)s, limiter, 1 FROM taken
)
SELECT t.task, t.queue, t.args::text AS args, t.meta, t.tags, t.attempt, t.max_attempts,
    t.timeout_seconds, t.deadline_at, t.created_at, t.started_at AS now
FROM taken t
