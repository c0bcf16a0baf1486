-- Ends operations as finished, stopped or canceled, with the code and a sentence that says why. One that has
-- stopped may be canceled. The caller has locked the rows.
-- Run by actions and by the loop operate. Index: operations_pkey.
UPDATE opsjobs.operations
SET state = %(state)s, ended_at = %(now)s, paused_at = NULL, code = %(code)s, says = %(says)s
WHERE id = ANY (%(ids)s::bigint[])
  AND (state IN ('running', 'paused') OR (state = 'stopped' AND %(state)s = 'canceled'))
