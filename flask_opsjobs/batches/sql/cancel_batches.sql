-- Notes that batches are canceled: folding then ends the members that wait, and has those stopped that run.
-- The caller holds their locks and has closed them.
-- Run by actions. Index: batches_pkey.
UPDATE opsjobs.batches SET cancel_requested_at = %(now)s, cancel_requested_by = %(actor)s,
    cancel_reason = %(reason)s
WHERE id = ANY (%(ids)s::bigint[]) AND state = 'running' AND cancel_requested_at IS NULL
