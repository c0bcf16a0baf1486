-- Counts the jobs that a run enqueued, per queue and task.
-- Run in the host's transaction, in a savepoint, by `start`.
INSERT INTO opsjobs.job_count_deltas (at, queue, enqueued, task)
SELECT %(now)s::timestamptz, queue, enqueued, task
FROM unnest(%(queues)s::text[], %(tasks)s::text[], %(numbers)s::bigint[]) AS counted(queue, task, enqueued)
