-- Notes why a batch cannot be folded, or that it can be again.
-- Run by those who fold. Index: batches_pkey.
UPDATE opsjobs.batches SET trouble = %(trouble)s WHERE id = %(id)s AND trouble IS DISTINCT FROM %(trouble)s
