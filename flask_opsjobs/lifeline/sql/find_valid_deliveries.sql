-- Finds, of these deliveries, those whose row is still in the same dispatch: dispatched under this number, or running
-- under it. Run by the recall loop on what it found in Redis. Index: jobs_pkey.
SELECT j.id, j.dispatch_no
FROM unnest(%(ids)s::bigint[], %(dispatch_nos)s::bigint[]) AS n(id, dispatch_no)
JOIN opsjobs.jobs j ON j.id = n.id AND j.dispatch_no = n.dispatch_no
WHERE j.state IN ('queued', 'started')
