-- Deletes the leases of attempts that have left `started`, by job and dispatch number. An attempt without a
-- limit, or whose lease was deleted already, has no row: each place is given back exactly once.
-- Run by `endings`, in the transaction that ends the attempts, and by the action `lease.release` for attempts
-- that do not run. Index: leases_pkey.
DELETE FROM opsjobs.leases l
USING unnest(%(job_ids)s::bigint[], %(dispatch_nos)s::bigint[]) AS n(job_id, dispatch_no)
WHERE l.job_id = n.job_id AND l.dispatch_no = n.dispatch_no
