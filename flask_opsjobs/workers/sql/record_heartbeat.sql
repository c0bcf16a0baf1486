-- Records a worker's heartbeat, and reads what somebody asked of the worker. Returns the rows of
-- read_requests.sql. A worker that was late, missing or forgotten becomes alive again; its rescued jobs are
-- protected by the fence. A worker that has stopped stays stopped. Locks only the worker's row.
-- Run by each worker of ours with each heartbeat. Indexes: workers_pkey, jobs_started, jobs_queued.
WITH written AS (
    UPDATE opsjobs.workers
    SET heartbeat_no = %(heartbeat_no)s, heartbeat_at = %(now)s, reserved = %(reserved)s,
        rss_kb = %(rss_kb)s, counts = %(counts)s,
        left_children = %(left_children)s, pool = %(pool)s,
        jobs_finished = %(jobs_finished)s, jobs_failed = %(jobs_failed)s, work_seconds = %(work_seconds)s,
        state = CASE state WHEN 'stopped' THEN state ELSE 'alive' END,
        ended_at = CASE state WHEN 'stopped' THEN ended_at END,
        forgotten_at = CASE state WHEN 'stopped' THEN forgotten_at END
    WHERE id = %(id)s
    RETURNING id, drain_requested_at IS NOT NULL AS is_drained
)
SELECT b.is_drained, j.id, j.dispatch_no
FROM written b
LEFT JOIN {list_stops_wanted.sql} AS j ON true
