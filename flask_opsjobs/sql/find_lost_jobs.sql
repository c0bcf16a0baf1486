-- Of the deliveries that an executor is running, those that are not its own any more: their jobs were put back, canceled
-- or handed out anew while it was silent. One is its own while the row bears the delivery's number and is `started` by this
-- executor, or `queued` because a crash of Postgres forgot the claim. Returns (id, dispatch number). Locks nothing.
-- Run by an executor with its beat. Index: jobs_pkey.
SELECT running.id, running.dispatch_no
FROM unnest(%(ids)s::bigint[], %(dispatch_nos)s::bigint[]) AS running(id, dispatch_no)
WHERE NOT EXISTS (
    SELECT FROM opsjobs.jobs j
    WHERE j.id = running.id AND j.dispatch_no = running.dispatch_no
      AND (j.state = 'queued' OR j.state = 'started' AND j.executor_id = %(executor_id)s)
)
