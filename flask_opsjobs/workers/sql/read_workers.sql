-- Reads workers for the decision about an operator's action, each with the number of `started` and reserved
-- jobs that it has, or has left. Locks nothing.
-- Rows: opsjobs, by origin.
-- Run by actions, first for the preview and again under the lock. Indexes: workers_name_key, jobs_started,
-- jobs_queued.
SELECT w.id, w.name, w.kind, w.state, w.queues, w.drain_requested_at, w.drain_requested_by, w.forgotten_at,
    (SELECT count(*) FROM opsjobs.jobs j
     WHERE j.state = 'started' AND j.worker_id = w.id AND j.origin = 'opsjobs')
    + (SELECT count(*) FROM opsjobs.jobs j
       WHERE j.state = 'queued' AND j.reserved_by = w.id AND j.origin = 'opsjobs') AS jobs
FROM opsjobs.workers w
WHERE w.name = ANY (%(names)s::text[])
ORDER BY w.id
