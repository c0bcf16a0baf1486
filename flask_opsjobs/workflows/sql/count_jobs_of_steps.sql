-- Counts the jobs that a run enqueued, per queue.
-- Run in the host's transaction, in a savepoint, by `start`.
INSERT INTO opsjobs.job_count_deltas (at, queue, enqueued)
SELECT %(now)s::timestamptz, queue, enqueued
FROM unnest(%(queues)s::text[], %(numbers)s::bigint[]) AS counted(queue, enqueued)
