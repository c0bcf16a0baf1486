-- Deletes the attempts by which workers handed these jobs back since the first refusal, but for the newest of each: a
-- deploy that takes ten minutes makes thirty of a job, and its page lists the last twenty attempts.
-- Run by `endings`, in the transaction that hands the jobs back and holds them. Indexes: jobs_pkey, attempts_pkey.
DELETE FROM opsjobs.attempts a
USING unnest(%(job_ids)s::bigint[], %(dispatch_nos)s::bigint[]) AS n(job_id, dispatch_no)
JOIN opsjobs.jobs j ON j.id = n.job_id
WHERE a.job_id = n.job_id AND a.dispatch_no < n.dispatch_no AND a.outcome = 'refused' AND a.ended_at >= j.first_refused_at
