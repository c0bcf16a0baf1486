-- Recalls a job to `available` when its bucket had no room at the claim; no attempt was made. Fenced by the
-- dispatch number. The caller has locked the job.
-- Rows: opsjobs, by their limiters.
-- Run by the claim of a limited job. Index: jobs_pkey.
WITH recalled AS (
    UPDATE opsjobs.jobs SET state = 'available', dispatched_at = NULL
    WHERE id = %(id)s AND state = 'queued' AND dispatch_no = %(dispatch_no)s RETURNING limiter
)
INSERT INTO opsjobs.limit_count_deltas (at, limiter, recalled) SELECT %(now)s, limiter, 1 FROM recalled
