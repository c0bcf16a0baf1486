-- Locks batches in id order, before any job: nobody folds, closes or ends them until the commit. Waits for a
-- fold, but not for transactions that add members.
-- Run by actions, in the transaction of an execution. Index: batches_pkey.
SELECT FROM opsjobs.batches WHERE id = ANY (%(ids)s::bigint[]) ORDER BY id FOR NO KEY UPDATE
