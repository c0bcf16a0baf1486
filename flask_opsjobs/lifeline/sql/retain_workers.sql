-- Removes workers that ended before %(before)s, at most %(limit)s. Keeps workers whose jobs still have to be
-- rescued.
-- Rows: opsjobs, by origin.
-- Run by the retain loop and by `flask opsjobs retain`. Indexes: workers_by_start, jobs_started.
WITH old AS MATERIALIZED (
    SELECT id FROM opsjobs.workers w
    WHERE started_at < %(before)s AND ended_at < %(before)s
        AND NOT EXISTS (
            SELECT FROM opsjobs.jobs j
            WHERE j.worker_id = w.id AND j.state = 'started' AND j.origin = 'opsjobs')
        AND NOT EXISTS (
            SELECT FROM opsjobs.jobs j
            WHERE j.reserved_by = w.id AND j.state = 'queued' AND j.origin = 'opsjobs')
    ORDER BY started_at LIMIT %(limit)s FOR UPDATE SKIP LOCKED
)
DELETE FROM opsjobs.workers w USING old WHERE w.id = old.id
