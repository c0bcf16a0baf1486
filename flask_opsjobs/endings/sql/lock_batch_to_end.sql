-- Locks a closed batch that nobody adds members to; no row while a transaction does: the batch ends after it.
-- That transaction began while the batch was open. What it added is seen by the next statement.
-- The caller has locked the batch to fold it.
-- Run by `fold`. Index: batches_pkey.
SELECT id FROM opsjobs.batches WHERE id = %(id)s AND state = 'running' FOR UPDATE SKIP LOCKED
