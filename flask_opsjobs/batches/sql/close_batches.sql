-- Closes open batches: no transaction can begin to add members any more. Those that are adding members go on,
-- and no batch ends before them. So this does not wait for them, and two hosts that add members to one batch
-- and then close it do not wait for each other. Waits for a fold. Locks in id order.
-- Run in the host's transaction by `close`, and by actions. Index: batches_pkey.
WITH locked AS MATERIALIZED (
    SELECT id FROM opsjobs.batches WHERE id = ANY (%(ids)s::bigint[]) AND state = 'open'
    ORDER BY id FOR NO KEY UPDATE
)
UPDATE opsjobs.batches b SET state = 'running', closed_at = clock_timestamp() FROM locked l WHERE b.id = l.id
