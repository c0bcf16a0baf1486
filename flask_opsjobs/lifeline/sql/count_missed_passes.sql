-- Counts a complete pass that did not find these incidents. After the clock was stepped back, they count as
-- last seen now: else they would be cleared only when the clock has caught up.
-- Run by a detecting pass, which has locked them. Index: incidents_pkey.
UPDATE opsjobs.incidents SET missed_passes = missed_passes + 1, seen_at = least(seen_at, %(now)s)
WHERE id = ANY (%(ids)s::bigint[])
