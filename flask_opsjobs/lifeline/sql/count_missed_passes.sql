-- Counts a complete pass that did not find these incidents.
-- Run by a detecting pass, which has locked them. Index: incidents_pkey.
UPDATE opsjobs.incidents SET missed_passes = missed_passes + 1 WHERE id = ANY (%(ids)s::bigint[])
