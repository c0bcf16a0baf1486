-- Lists the workers that have not ended and listen to each of these queues, at most %(most)s of each, with
-- their longest running job when each of their children runs one, and why their last child left when none
-- starts. `is_alive` is computed by listeners.sql. Rows of `started` jobs tell who is busy, since a heartbeat
-- may be ten seconds old; they hold no jobs that run for less than 50 ms. Locks nothing.
-- Rows: opsjobs, by origin.
-- Run by explain/queries.py. Indexes: workers_alive, jobs_started.
SELECT q.queue, w.id, w.name, w.kind, w.heartbeat_at, w.reserved, l.id IS NOT NULL AS is_alive,
    r.id AS running_job, r.started_at AS running, n.sentence AS no_child
FROM unnest(%(queues)s::text[]) AS q(queue)
CROSS JOIN LATERAL (
    SELECT * FROM opsjobs.workers
    WHERE ended_at IS NULL AND q.queue = ANY (queues)
    ORDER BY heartbeat_at DESC LIMIT %(most)s) AS w
LEFT JOIN {listeners.sql} AS l ON l.id = w.id
LEFT JOIN LATERAL (
    SELECT j.id, j.started_at, count(*) OVER () AS number FROM opsjobs.jobs j
    WHERE j.worker_id = w.id AND j.state = 'started' AND j.origin = 'opsjobs' ORDER BY j.started_at LIMIT 1
) AS r ON r.number >= w.processes
LEFT JOIN LATERAL (
    SELECT c.one ->> 'sentence' AS sentence FROM jsonb_array_elements(w.left_children) AS c(one)
    WHERE c.one ->> 'kind' IN ('refused', 'start', 'died', 'hook') ORDER BY c.one ->> 'at' DESC LIMIT 1
) AS n ON w.pool -> 'children' = '[]'
ORDER BY q.queue, w.name
