-- Reads the key of a failure. Locks nothing.
-- Run by the search for jobs. Index: failures_pkey.
SELECT key FROM opsjobs.failures WHERE id = %(failure)s
