-- Lists at most %(most)s workers that have not ended or went missing within a day, by name, with what ended
-- in them. A worker is busy when it holds a job. Locks nothing.
-- Rows: both.
-- Run by telemetry/queries.py. Indexes: workers_alive, jobs_started.
SELECT w.name, w.kind, w.queues, w.jobs_finished, w.jobs_failed, w.work_seconds,
    CASE WHEN w.state = 'alive' AND a.id IS NULL THEN 'late' ELSE w.state END AS state,
    a.id IS NOT NULL AND w.drain_requested_at IS NULL AS is_listening,
    cardinality(w.reserved) > 0
        OR EXISTS (SELECT FROM opsjobs.jobs j WHERE j.state = 'started' AND j.worker_id = w.id) AS is_busy
FROM (
    SELECT * FROM opsjobs.workers WHERE ended_at IS NULL
    UNION ALL
    SELECT * FROM opsjobs.workers
    WHERE state = 'missing' AND forgotten_at IS NULL AND ended_at > %(now)s::timestamptz - interval '1 day'
) AS w
LEFT JOIN {alive_workers.sql} AS a USING (id)
ORDER BY w.name LIMIT %(most)s
