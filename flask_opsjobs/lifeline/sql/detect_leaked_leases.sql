-- Finds leases whose attempt does not run: the job is gone, has ended, waits, or runs under another number.
-- One row for each limiter. There is one lease for each limited job that runs.
-- Rows: opsjobs, by their limiters.
-- Run by the loop detect. The table is read whole, at most 20,000 rows. Index: jobs_pkey.
SELECT l.limiter, count(*) AS number, min(l.taken_at) AS since,
    (array_agg(l.job_id ORDER BY l.job_id))[:101] AS jobs,
    (array_agg(l.job_id || '-' || l.dispatch_no ORDER BY l.job_id, l.dispatch_no))[:100] AS leases
FROM (SELECT * FROM opsjobs.leases LIMIT 20000) AS l
LEFT JOIN opsjobs.jobs j ON j.id = l.job_id
WHERE l.taken_at < %(now)s::timestamptz - interval '30 s'
    AND (j.id IS NULL OR j.state <> 'started' OR j.dispatch_no <> l.dispatch_no)
GROUP BY l.limiter
ORDER BY l.limiter
LIMIT %(limit)s
