-- Reads leases by their attempts (job, dispatch number) for the decision about an operator's action. A lease
-- is leaked when the loop detect would find it: 30 s old, and its attempt does not run. Locks nothing.
-- Rows: opsjobs, by their limiters.
-- Run by actions, first for the preview and again under the lock. Indexes: leases_pkey, jobs_pkey.
SELECT l.job_id, l.dispatch_no, l.limiter, l.partition, l.weight, l.taken_at, j.state AS job_state,
    j.dispatch_no AS job_dispatch_no, l.taken_at < %(now)s::timestamptz - interval '30 s'
        AND (j.id IS NULL OR j.state <> 'started' OR j.dispatch_no <> l.dispatch_no) AS is_leaked
FROM unnest(%(job_ids)s::bigint[], %(dispatch_nos)s::bigint[]) AS n(job_id, dispatch_no)
JOIN opsjobs.leases l USING (job_id, dispatch_no)
LEFT JOIN opsjobs.jobs j ON j.id = l.job_id
ORDER BY l.job_id, l.dispatch_no
