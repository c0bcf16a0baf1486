-- Counts the jobs that wait for a bucket, and stops at %(most)s. Locks nothing.
-- Rows: opsjobs, by their limiters.
-- Run by limits/queries.py. Index: jobs_limited.
SELECT count(*) FROM (SELECT FROM opsjobs.jobs
    WHERE limiter = %(limiter)s AND partition = %(partition)s AND state = 'available' LIMIT %(most)s) AS few
