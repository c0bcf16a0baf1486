-- Adds to the counts of an operation what became of its rows, and when. The caller has locked the row.
-- Run by the loop operate. Index: operations_pkey.
UPDATE opsjobs.operations
SET done = done + %(done)s, skipped = skipped + %(skipped)s, asked = asked + %(asked)s,
    proven = proven + %(proven)s, failed_same_error = failed_same_error + %(failed_same_error)s,
    failed_other_error = failed_other_error + %(failed_other_error)s, unproven = unproven + %(unproven)s,
    drifted = drifted + %(drifted)s, handled_at = coalesce(%(handled_at)s, handled_at),
    paced_at = coalesce(%(paced_at)s, paced_at)
WHERE id = %(id)s
