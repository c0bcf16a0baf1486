-- Locks leases in the order of their attempts (job, dispatch number), after the jobs. The caller reads them
-- with the next statement.
-- Run by actions, in the transaction of an execution. Index: leases_pkey.
SELECT FROM opsjobs.leases
WHERE (job_id, dispatch_no) IN
    (SELECT * FROM unnest(%(job_ids)s::bigint[], %(dispatch_nos)s::bigint[]))
ORDER BY job_id, dispatch_no FOR UPDATE
