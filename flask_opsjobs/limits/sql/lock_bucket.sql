-- Locks one bucket. Returns no row when the bucket was never used or was removed as idle; the caller inserts
-- it then. Deadlocks are impossible: jobs are locked before buckets, and a transaction locks one bucket, or
-- several in the order of their names.
-- Run by the claim of a limited job. Index: buckets_pkey.
SELECT 1 FROM opsjobs.buckets WHERE limiter = %(limiter)s AND partition = %(partition)s FOR UPDATE
