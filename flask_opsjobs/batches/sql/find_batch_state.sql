-- Finds the state of a batch; no row when there is no such batch. Locks nothing.
-- Run in the host's transaction by `close`, and when no member could be added. Index: batches_pkey.
SELECT state FROM opsjobs.batches WHERE id = %(id)s
