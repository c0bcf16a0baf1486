-- Recalls jobs whose delivery was not pushed or is lost. Returns id, dispatch number, lane and queue of the
-- recalled ones.
-- Leaves reserved jobs to their workers. Fenced by the dispatch number. Locks in id order, so that two
-- recalls cannot deadlock.
-- Rows: opsjobs, by origin.
-- Run by a dispatcher whose push failed, by the recall loop, and by a worker's taker. Index: jobs_pkey.
WITH named AS MATERIALIZED (
    SELECT id, dispatch_no FROM unnest(%(ids)s::bigint[], %(dispatch_nos)s::bigint[]) AS n(id, dispatch_no)
), locked AS MATERIALIZED (
    SELECT j.id, j.dispatch_no FROM opsjobs.jobs j JOIN named n USING (id)
    WHERE j.state = 'queued' AND j.dispatch_no = n.dispatch_no AND j.reserved_by IS NULL
      AND j.origin = 'opsjobs'
    ORDER BY j.id FOR UPDATE OF j
)
UPDATE opsjobs.jobs j SET state = 'available', dispatched_at = NULL
FROM locked l WHERE j.id = l.id
RETURNING j.id, j.dispatch_no, j.lane, j.queue
