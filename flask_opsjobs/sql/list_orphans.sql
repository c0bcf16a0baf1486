-- The executors that have ended, or that nobody recorded, and yet bear `started` jobs, each once with how many.
-- Few rows stand as started, so they are read whole. Locks nothing: the rescue that follows looks again.
-- Run by the watch loop. Indexes: jobs_started, executors_pkey.
SELECT j.executor_id, e.name, e.kind, e.state, e.beat_at, e.ended_at, count(*) AS jobs,
    max(j.started_at) AS last_claim_at
FROM (
    SELECT executor_id, started_at FROM opsjobs.jobs
    WHERE state = 'started' AND origin = 'opsjobs' AND executor_id IS NOT NULL
) AS j
LEFT JOIN opsjobs.executors e ON e.id = j.executor_id
WHERE e.id IS NULL OR e.ended_at IS NOT NULL
GROUP BY j.executor_id, e.name, e.kind, e.state, e.beat_at, e.ended_at
ORDER BY j.executor_id
