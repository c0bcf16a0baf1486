-- Locks batches in id order, before any job, for those who close them. Waits for transactions that add
-- members, and for a fold.
-- Run by actions, in the transaction of an execution. Index: batches_pkey.
SELECT FROM opsjobs.batches WHERE id = ANY (%(ids)s::bigint[]) ORDER BY id FOR UPDATE
