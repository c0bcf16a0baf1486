-- Pauses an entry. Run by actions under the entry's lock. Index: cron_entries_pkey.
UPDATE opsjobs.cron_entries
SET is_paused = true, paused_at = %(now)s, paused_by = %(actor)s, paused_reason = %(reason)s
WHERE name = %(name)s
