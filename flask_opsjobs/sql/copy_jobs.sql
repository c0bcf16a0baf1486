-- Records jobs that differ in nothing but their arguments, one line each.
-- Run in the host's transaction, in a savepoint, by `enqueue_many`.
COPY opsjobs.jobs (worker, queue, line, state, priority, meta, tags, max_attempts, timeout_seconds, deadline_at,
    created_at, due_at, args) FROM STDIN
