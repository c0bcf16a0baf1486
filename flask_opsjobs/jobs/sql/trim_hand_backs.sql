-- Deletes the attempts in which workers handed these jobs back, since the first one, except the newest of
-- each job. Without this, a deploy of ten minutes would leave thirty of them, and the page of a job lists
-- only the last twenty attempts.
-- Rows: opsjobs, by origin.
-- Run by `endings`, in the transaction that has locked the jobs and hands them back. Indexes: jobs_pkey,
-- attempts_pkey.
DELETE FROM opsjobs.attempts a
USING unnest(%(job_ids)s::bigint[], %(dispatch_nos)s::bigint[]) AS n(job_id, dispatch_no)
JOIN opsjobs.jobs j ON j.id = n.job_id AND j.origin = 'opsjobs'
WHERE a.job_id = n.job_id AND a.dispatch_no < n.dispatch_no
  AND a.outcome = 'not_run' AND a.ended_at >= j.first_handed_back_at
