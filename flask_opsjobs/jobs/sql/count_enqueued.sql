-- Counts the jobs that one `enqueue_many` copied.
-- Run in the host's transaction, in a savepoint, by `enqueue_many`.
INSERT INTO opsjobs.job_count_deltas (at, queue, enqueued, task)
VALUES (%(created_at)s::timestamptz, %(queue)s, %(enqueued)s, %(task)s)
