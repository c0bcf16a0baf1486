-- Notes why a batch cannot be folded, or with null that it can be again. Skips a batch that is locked.
-- Run by `fold` and after it failed. Index: batches_pkey.
UPDATE opsjobs.batches SET trouble = %(trouble)s
WHERE id IN (
    SELECT id FROM opsjobs.batches WHERE id = %(id)s AND trouble IS DISTINCT FROM %(trouble)s
    FOR NO KEY UPDATE SKIP LOCKED)
