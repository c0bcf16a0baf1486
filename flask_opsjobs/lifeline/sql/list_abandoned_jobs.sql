-- Lists the workers that have ended or are unknown but still have `started` or reserved jobs: one row each,
-- with the numbers of both. Few jobs are `started` or `queued` at a time, so all of them are read. Locks
-- nothing: the rescue that follows checks again.
-- Rows: opsjobs, by origin.
-- Run by the watch loop. Indexes: jobs_started, jobs_queued, workers_pkey.
SELECT j.worker_id, w.name, w.kind, w.state, w.heartbeat_at, w.ended_at, count(j.started_at) AS jobs,
    count(j.reserved_at) AS reserved, max(j.started_at) AS last_claim_at
FROM (
    SELECT worker_id, started_at, NULL::timestamptz AS reserved_at FROM opsjobs.jobs
    WHERE state = 'started' AND origin = 'opsjobs' AND worker_id IS NOT NULL
    UNION ALL
    SELECT reserved_by, NULL, dispatched_at FROM opsjobs.jobs
    WHERE state = 'queued' AND origin = 'opsjobs' AND reserved_by IS NOT NULL
) AS j
LEFT JOIN opsjobs.workers w ON w.id = j.worker_id
WHERE w.id IS NULL OR w.ended_at IS NOT NULL
GROUP BY j.worker_id, w.name, w.kind, w.state, w.heartbeat_at, w.ended_at
ORDER BY j.worker_id
