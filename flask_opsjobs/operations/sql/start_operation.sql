-- Starts drafts under the name of who starts them, with the reason for which. %(rate)s replaces their rate; 0
-- takes it away. The caller has locked the rows.
-- Run by actions. Index: operations_pkey.
UPDATE opsjobs.operations
SET state = 'running', actor = %(actor)s, reason = %(reason)s, started_at = %(now)s,
    is_trusted = %(is_trusted)s, via = %(via)s, rate = nullif(coalesce(%(rate)s::int, rate), 0)
WHERE id = ANY (%(ids)s::bigint[]) AND state = 'draft'
