-- Sets the cooldown of limiters until %(until)s: they start nothing; all four values NULL clear it. The
-- caller has locked the rows.
-- Run by actions. Index: limiters_pkey.
UPDATE opsjobs.limiters
SET cooldown_at = %(at)s, cooldown_until = %(until)s, cooldown_by = %(actor)s, cooldown_reason = %(reason)s
WHERE name = ANY (%(limiters)s::text[])
