-- Finds which of the deliveries that a worker runs are no longer its own, because their jobs were rescued,
-- canceled or dispatched again while it was silent. A delivery is its own while the job has its dispatch
-- number and is `started` by this worker, or `queued` because a crash of Postgres lost the claim. Returns
-- (id, dispatch number). Locks nothing.
-- Rows: opsjobs, by origin.
-- Run by a worker with its heartbeat. Index: jobs_pkey.
SELECT running.id, running.dispatch_no
FROM unnest(%(ids)s::bigint[], %(dispatch_nos)s::bigint[]) AS running(id, dispatch_no)
WHERE NOT EXISTS (
    SELECT FROM opsjobs.jobs j
    WHERE j.id = running.id AND j.dispatch_no = running.dispatch_no AND j.origin = 'opsjobs'
      AND (j.state = 'queued' OR j.state = 'started' AND j.worker_id = %(worker_id)s)
)
