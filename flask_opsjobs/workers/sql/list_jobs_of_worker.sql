-- Lists the ids of the `started` and reserved jobs that a worker has, or has left, at most %(limit)s. Locks
-- nothing.
-- Rows: opsjobs, by origin.
-- Run by workers/queries.py. Indexes: workers_name_key, jobs_started, jobs_queued.
SELECT j.id FROM opsjobs.workers w
CROSS JOIN LATERAL (
    SELECT id FROM opsjobs.jobs WHERE state = 'started' AND worker_id = w.id AND origin = 'opsjobs'
    UNION ALL
    SELECT id FROM opsjobs.jobs WHERE state = 'queued' AND reserved_by = w.id AND origin = 'opsjobs'
) AS j
WHERE w.name = %(name)s
ORDER BY j.id LIMIT %(limit)s
