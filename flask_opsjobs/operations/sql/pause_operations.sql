-- Pauses operations that run, or notes another cause of a pause, with the code and a sentence that says why.
-- The caller has locked the rows.
-- Run by actions and by the loop operate. Index: operations_pkey.
UPDATE opsjobs.operations
SET state = 'paused', paused_at = coalesce(paused_at, %(now)s), code = %(code)s, says = %(says)s
WHERE id = ANY (%(ids)s::bigint[]) AND state IN ('running', 'paused')
