-- Notes a worker's heartbeat, and asks which of its jobs shall stop.
-- Returns (job id, dispatch number) for each; a row of nulls when there is none; nothing when the worker is unknown.
-- One that was late or given up comes back: its rescued jobs are fenced. One that has stopped stays stopped.
-- Locks the worker's row alone. Run by each OpsWorker with each heartbeat. Indexes: workers_pkey, jobs_started.
WITH written AS (
    UPDATE opsjobs.workers
    SET heartbeat_no = %(heartbeat_no)s, heartbeat_at = %(now)s, reserved = %(reserved)s, run_seconds = %(run_seconds)s,
        rss_kb = %(rss_kb)s, counts = %(counts)s,
        state = CASE state WHEN 'stopped' THEN state ELSE 'alive' END,
        ended_at = CASE state WHEN 'stopped' THEN ended_at END
    WHERE id = %(id)s
    RETURNING id
)
SELECT j.id, j.dispatch_no
FROM written b
LEFT JOIN opsjobs.jobs j
    ON j.worker_id = b.id AND j.state = 'started' AND j.cancel_requested_at IS NOT NULL
