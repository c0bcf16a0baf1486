-- Reads buckets in the given order: the declared limiter (name NULL: no process that knows it has started),
-- the tokens at the last refill, the weight of the leases, of queued jobs and, if %(with_waiting)s, of
-- waiting jobs that can start. When a queue is given, jobs that were dispatched on other queues count for 2 s
-- only: their queue may have no worker, or only busy ones, and must not block this queue meanwhile. If too
-- much is dispatched, the claim returns the rest. Locks nothing: dispatch and reject read without a lock, and
-- the claim has locked the bucket before.
-- Rows: opsjobs, by their limiters.
-- Run by dispatch, claim, enqueue and explain. Indexes: limiters_pkey, buckets_pkey, leases_by_bucket,
-- jobs_limited.
SELECT n.limiter, n.partition, l.name, l.rate, l.per_seconds, l.burst, l.concurrency, b.tokens, b.refilled_at,
    CASE WHEN l.concurrency IS NULL THEN 0 ELSE (
        SELECT coalesce(sum(x.weight), 0)::bigint FROM opsjobs.leases x
        WHERE x.limiter = n.limiter AND x.partition = n.partition) END AS in_use,
    (SELECT coalesce(sum(j.weight), 0)::bigint FROM opsjobs.jobs j
        WHERE j.limiter = n.limiter AND j.partition = n.partition AND j.state = 'queued'
            AND (n.queue IS NULL OR j.queue = n.queue
                OR j.dispatched_at > clock_timestamp() - interval '2 s')) AS queued,
    CASE WHEN %(with_waiting)s THEN (SELECT coalesce(sum(j.weight), 0)::bigint FROM opsjobs.jobs j
        WHERE j.limiter = n.limiter AND j.partition = n.partition AND j.state = 'available'
            AND j.weight <= coalesce(least(l.burst, l.concurrency), j.weight)) ELSE 0 END AS waiting,
    greatest(l.cooldown_until, b.cooldown_until) AS cooldown_until, clock_timestamp() AS now
FROM unnest(%(limiters)s::text[], %(partitions)s::text[], %(queues)s::text[])
    WITH ORDINALITY AS n(limiter, partition, queue, number)
LEFT JOIN opsjobs.limiters l ON l.name = n.limiter
LEFT JOIN opsjobs.buckets b ON b.limiter = n.limiter AND b.partition = n.partition
ORDER BY n.number
