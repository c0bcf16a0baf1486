-- Moves an operation to its next stage. The caller has locked the row.
-- Run by the loop operate. Index: operations_pkey.
UPDATE opsjobs.operations SET stage = stage + 1, is_proof_waived = false WHERE id = %(id)s
