-- Computes the times that all jobs of one `enqueue_many` share, as text for COPY, and their first state.
-- Run in the host's transaction, once per call.
WITH moment AS MATERIALIZED (
    SELECT clock_timestamp() AS now
), due AS MATERIALIZED (
    SELECT now, coalesce(%(scheduled_at)s::timestamptz, now + %(delay)s::interval) AS at FROM moment
)
SELECT now::text AS created_at, at::text AS due_at, (at + %(deadline)s::interval)::text AS deadline_at,
    CASE WHEN at > now THEN 'scheduled' ELSE 'available' END AS state
FROM due
