-- Lists started jobs that nobody says he holds: id, dispatch number, queue, and the number of the heartbeat that lacks
-- it, NULL when no worker is left to send one. A heartbeat before the claim says nothing, and a plain RQ worker never
-- says what it holds. Few rows stand as started, at most %(limit)s are read. Locks nothing.
-- Run by the check_integrity loop, which asks again before it believes. Indexes: jobs_started, workers_pkey.
SELECT j.id, j.dispatch_no, j.queue, CASE WHEN w.ended_at IS NULL THEN w.heartbeat_no END AS heartbeat_no
FROM (
    SELECT id, dispatch_no, queue, worker_id, started_at FROM opsjobs.jobs
    WHERE state = 'started' AND origin = 'opsjobs' LIMIT %(limit)s
) AS j
LEFT JOIN opsjobs.workers w ON w.id = j.worker_id
WHERE w.id IS NULL OR w.ended_at IS NOT NULL
    OR (w.kind <> 'plain' AND w.heartbeat_at > j.started_at AND NOT (j.id || '-' || j.dispatch_no) = ANY (w.reserved))
