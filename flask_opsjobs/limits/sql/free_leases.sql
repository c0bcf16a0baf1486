-- Gives back the places of attempts that have left `started`, by job and dispatch number. A place that an attempt never
-- took, or gave back already, is not there: each is given back once.
-- Only ends run it, in their own transaction. Index: leases_pkey.
DELETE FROM opsjobs.leases l
USING unnest(%(job_ids)s::bigint[], %(dispatch_nos)s::bigint[]) AS n(job_id, dispatch_no)
WHERE l.job_id = n.job_id AND l.dispatch_no = n.dispatch_no
