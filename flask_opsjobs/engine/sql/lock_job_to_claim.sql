-- Locks the job of a delivery, and returns its state. Makes the commit synchronous, unlike the commit of an
-- unlimited claim: if a crash of Postgres lost the claim, its place would be given out again, and more jobs
-- would run than the limit allows.
-- Rows: opsjobs, by origin.
-- Run by the claim of a limited job, before it locks the bucket. Index: jobs_pkey.
SELECT j.state, j.dispatch_no, j.limiter, j.partition, j.weight,
    coalesce(j.deadline_at <= clock_timestamp(), false) AS is_overdue,
    set_config('synchronous_commit', 'on', true)
FROM opsjobs.jobs j WHERE j.id = %(id)s AND j.origin = 'opsjobs' FOR UPDATE
