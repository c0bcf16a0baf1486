-- Closes open batches: no member can be added any more. Waits for the transactions that add members, and
-- for a fold. Locks in id order.
-- Run in the host's transaction by `close`, and by actions. Index: batches_pkey.
WITH locked AS MATERIALIZED (
    SELECT id FROM opsjobs.batches WHERE id = ANY (%(ids)s::bigint[]) AND state = 'open'
    ORDER BY id FOR UPDATE
)
UPDATE opsjobs.batches b SET state = 'running', closed_at = clock_timestamp() FROM locked l WHERE b.id = l.id
