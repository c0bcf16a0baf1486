-- Enqueues jobs with the same options, one line each with their arguments and their limit.
-- Rows: opsjobs, which it inserts.
-- Run in the host's transaction, in a savepoint, by `enqueue_many`.
COPY opsjobs.jobs (task, queue, state, priority, meta, tags, max_attempts, timeout_seconds, deadline_at,
    created_at, due_at, batch_id{traced:, traceparent, tracestate},
    lane, limiter, partition, weight, args) FROM STDIN
