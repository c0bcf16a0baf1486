-- Records a worker's heartbeat, and finds which of its jobs shall stop. Returns (job id, dispatch number) for
-- each; a row of NULLs when there is none; no row when the worker is unknown. A worker that was late or
-- missing becomes alive again; its rescued jobs are protected by the fence. A worker that has stopped stays
-- stopped. Locks only the worker's row.
-- Run by each OpsWorker with each heartbeat. Indexes: workers_pkey, jobs_started.
WITH written AS (
    UPDATE opsjobs.workers
    SET heartbeat_no = %(heartbeat_no)s, heartbeat_at = %(now)s, reserved = %(reserved)s,
        run_seconds = %(run_seconds)s, rss_kb = %(rss_kb)s, counts = %(counts)s,
        state = CASE state WHEN 'stopped' THEN state ELSE 'alive' END,
        ended_at = CASE state WHEN 'stopped' THEN ended_at END
    WHERE id = %(id)s
    RETURNING id
)
SELECT j.id, j.dispatch_no
FROM written b
LEFT JOIN opsjobs.jobs j
    ON j.worker_id = b.id AND j.state = 'started' AND j.cancel_requested_at IS NOT NULL
