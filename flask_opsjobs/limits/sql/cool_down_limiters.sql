-- Lets limiters start nothing until %(until)s; all four values NULL clear it.
-- The caller holds the rows. Run by actions. Index: limiters_pkey.
UPDATE opsjobs.limiters
SET cooldown_at = %(at)s, cooldown_until = %(until)s, cooldown_by = %(actor)s, cooldown_reason = %(reason)s
WHERE name = ANY (%(limiters)s::text[])
