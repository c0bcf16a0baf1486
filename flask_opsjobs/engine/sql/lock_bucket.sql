-- Locks one bucket. No row: it was never used, or was removed as idle; then it is made.
-- Jobs are locked before buckets, and a transaction locks one bucket, or several in the order of their names: nobody can
-- deadlock.
-- Run by the claim of a limited job. Index: buckets_pkey.
SELECT 1 FROM opsjobs.buckets WHERE limiter = %(limiter)s AND partition = %(partition)s FOR UPDATE
