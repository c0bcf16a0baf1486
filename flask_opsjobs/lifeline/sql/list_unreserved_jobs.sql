-- Lists `started` and reserved jobs that no worker reports as held: id, dispatch number, queue, and the
-- number of the heartbeat that lacks the job; NULL when its worker has ended or is unknown. Ignores
-- heartbeats sent before the claim or the reservation, and plain RQ workers, which never report their jobs.
-- Few jobs are `started` at a time; at most %(limit)s are read. Locks nothing.
-- Rows: opsjobs, by origin.
-- Run by the check_integrity loop, which counts a job only when two passes find it. Indexes: jobs_started,
-- jobs_queued, workers_pkey.
SELECT j.id, j.dispatch_no, j.queue, CASE WHEN w.ended_at IS NULL THEN w.heartbeat_no END AS heartbeat_no
FROM (
    (SELECT id, dispatch_no, queue, worker_id, started_at AS since FROM opsjobs.jobs
     WHERE state = 'started' AND origin = 'opsjobs' LIMIT %(limit)s)
    UNION ALL
    (SELECT id, dispatch_no, queue, reserved_by, dispatched_at FROM opsjobs.jobs
     WHERE state = 'queued' AND reserved_by IS NOT NULL AND origin = 'opsjobs' LIMIT %(limit)s)
) AS j
LEFT JOIN opsjobs.workers w ON w.id = j.worker_id
WHERE w.id IS NULL OR w.ended_at IS NOT NULL
    OR (w.kind <> 'plain' AND w.heartbeat_at > j.since
        AND NOT (j.id || '-' || j.dispatch_no) = ANY (w.reserved))
