-- The executors that have not ended and listen to a queue, at most %(most)s, each with the job that it has had in
-- hand longest; `is_alive` as listeners.sql says it. Rows of `started` jobs, not the beats, say who is busy: a beat is up to ten seconds old.
-- Locks nothing. Run by explain/queries.py. Indexes: executors_alive, jobs_started.
SELECT e.id, e.name, e.kind, e.beat_at, e.holding, l.id IS NOT NULL AS is_alive, r.id AS running_job,
    r.started_at AS running
FROM (
    SELECT * FROM opsjobs.executors
    WHERE ended_at IS NULL AND %(queue)s = ANY (queues)
    ORDER BY beat_at DESC LIMIT %(most)s) AS e
LEFT JOIN {listeners.sql} AS l ON l.id = e.id
LEFT JOIN LATERAL (
    SELECT j.id, j.started_at FROM opsjobs.jobs j
    WHERE j.executor_id = e.id AND j.state = 'started' ORDER BY j.started_at LIMIT 1) AS r ON true
ORDER BY e.name
