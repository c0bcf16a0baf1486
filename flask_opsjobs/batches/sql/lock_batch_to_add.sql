-- Locks a batch so that nobody closes it before the commit, and returns its name and state; no row when there
-- is no such batch. Several transactions may hold this lock at once, and folding goes on beside it. Waits for
-- a transaction that closes the batch.
-- Run in the host's transaction before members are added. Index: batches_pkey.
SELECT name, state FROM opsjobs.batches WHERE id = %(id)s FOR KEY SHARE
