-- Lists the leases of a limiter, or only of its partition %(partition)s when that is not NULL, at most
-- %(limit)s, each with its job and the worker that runs it. Ordered by partition, the oldest first. Locks
-- nothing.
-- Rows: opsjobs, by their limiters.
-- Run by limits/queries.py. Indexes: leases_by_bucket, jobs_pkey, workers_pkey.
SELECT x.job_id, x.partition, x.weight, x.taken_at, j.task, j.state, w.name AS worker, x.dispatch_no,
    j.state IS DISTINCT FROM 'started' OR j.dispatch_no <> x.dispatch_no AS is_idle
FROM (SELECT * FROM opsjobs.leases WHERE limiter = %(limiter)s
        AND (%(partition)s::text IS NULL OR partition = %(partition)s)
      ORDER BY limiter, partition, taken_at LIMIT %(limit)s) AS x
LEFT JOIN opsjobs.jobs j ON j.id = x.job_id
LEFT JOIN opsjobs.workers w ON w.id = j.worker_id
ORDER BY x.partition, x.taken_at
