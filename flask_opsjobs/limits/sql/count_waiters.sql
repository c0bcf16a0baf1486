-- Counts the jobs that wait for a bucket, and stops at %(most)s. Locks nothing.
-- Run by limits/queries.py. Index: jobs_limited.
SELECT count(*) FROM (SELECT FROM opsjobs.jobs
    WHERE limiter = %(limiter)s AND partition = %(partition)s AND state = 'available' LIMIT %(most)s) AS few
