-- Marks a preview as used, with its outcome. Once it is spent, only its receipt may be extended.
-- The caller holds the row. Run by actions. Index: previews_pkey.
UPDATE opsjobs.previews
SET spent_at = coalesce(spent_at, %(now)s), outcome = coalesce(outcome, %(outcome)s), receipt = %(receipt)s
WHERE id = %(id)s
