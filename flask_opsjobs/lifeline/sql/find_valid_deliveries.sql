-- Finds which of these deliveries are valid: their job is `queued` or `started` under the same dispatch
-- number.
-- Rows: opsjobs, by origin.
-- Run by the recall loop, for deliveries that it found in Redis. Index: jobs_pkey.
SELECT j.id, j.dispatch_no
FROM unnest(%(ids)s::bigint[], %(dispatch_nos)s::bigint[]) AS n(id, dispatch_no)
JOIN opsjobs.jobs j ON j.id = n.id AND j.dispatch_no = n.dispatch_no
WHERE j.state IN ('queued', 'started') AND j.origin = 'opsjobs'
