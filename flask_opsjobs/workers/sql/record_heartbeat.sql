-- Records a worker's heartbeat, and finds which of its started and reserved jobs shall stop. Returns (job
-- id, dispatch number) for each; a row of NULLs when there is none; no row when the worker is unknown. A
-- worker that was late or missing becomes alive again; its rescued jobs are protected by the fence. A worker
-- that has stopped stays stopped. Locks only the worker's row.
-- Run by each worker of ours with each heartbeat. Indexes: workers_pkey, jobs_started, jobs_queued.
WITH written AS (
    UPDATE opsjobs.workers
    SET heartbeat_no = %(heartbeat_no)s, heartbeat_at = %(now)s, reserved = %(reserved)s,
        rss_kb = %(rss_kb)s, counts = %(counts)s,
        left_children = %(left_children)s, pool = %(pool)s,
        state = CASE state WHEN 'stopped' THEN state ELSE 'alive' END,
        ended_at = CASE state WHEN 'stopped' THEN ended_at END
    WHERE id = %(id)s
    RETURNING id
)
SELECT j.id, j.dispatch_no
FROM written b
LEFT JOIN LATERAL (
    SELECT id, dispatch_no FROM opsjobs.jobs
    WHERE worker_id = b.id AND state = 'started' AND cancel_requested_at IS NOT NULL
    UNION ALL
    SELECT id, dispatch_no FROM opsjobs.jobs
    WHERE reserved_by = b.id AND state = 'queued' AND cancel_requested_at IS NOT NULL
) AS j ON true
