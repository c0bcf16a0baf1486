-- Finds started and reserved jobs that their worker does not name, although it has sent two heartbeats since
-- it took them, and jobs of a worker that is unknown. One row for each worker; plain RQ workers never name
-- their jobs, and what missing workers left is another class. Few jobs are started or reserved at a time; at
-- most 20,000 of each are read.
-- Rows: opsjobs, by origin.
-- Run by the loop detect. Indexes: jobs_started, jobs_queued, workers_pkey.
SELECT j.worker_id, w.name, count(*) AS number, min(j.since) AS since,
    (array_agg(j.id ORDER BY j.id))[:101] AS jobs
FROM (
    (SELECT id, dispatch_no, worker_id, started_at AS since FROM opsjobs.jobs
     WHERE state = 'started' AND origin = 'opsjobs' AND worker_id IS NOT NULL LIMIT 20000)
    UNION ALL
    (SELECT id, dispatch_no, reserved_by, dispatched_at FROM opsjobs.jobs
     WHERE state = 'queued' AND reserved_by IS NOT NULL AND origin = 'opsjobs' LIMIT 20000)
) AS j
LEFT JOIN opsjobs.workers w ON w.id = j.worker_id
WHERE w.id IS NULL OR (w.ended_at IS NULL AND w.kind <> 'plain'
    AND w.heartbeat_at > j.since + 2 * %(heartbeat_seconds)s::float8 * interval '1 s'
    AND NOT (j.id || '-' || j.dispatch_no) = ANY (w.reserved))
GROUP BY j.worker_id, w.name
ORDER BY j.worker_id
LIMIT %(limit)s
