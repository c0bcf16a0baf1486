-- Enqueues the jobs of a run: those of steps that wait for nothing, and those of all others as `deferred`.
-- Rows: opsjobs, which it inserts.
-- Run in the host's transaction, in a savepoint, by `start`.
COPY opsjobs.jobs (id, state, due_at, deadline_at, unique_key, unique_until, task, queue, priority, meta,
    tags, max_attempts, timeout_seconds, lane, limiter, partition, weight, created_at, workflow_id
    {traced:, traceparent, tracestate}, args)
FROM STDIN
