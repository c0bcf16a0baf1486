-- Locks a batch, unless another transaction folds or closes it: a later fold sees what that one leaves.
-- Transactions that add members do not hinder this lock. Returns what folding decides by, and the time; no
-- row when the batch is locked or gone.
-- Run by `fold`. Index: batches_pkey.
SELECT coalesce(%(now)s, clock_timestamp()) AS now, name, state, end_no, first_failed_at, on_failure, meta,
    cancel_requested_at, cancel_requested_by, cancel_reason, trouble, {limit_turn.sql} AS limits
FROM opsjobs.batches
WHERE id = %(id)s
FOR NO KEY UPDATE SKIP LOCKED
