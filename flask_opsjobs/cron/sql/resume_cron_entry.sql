-- Resumes an entry. Run by actions under the entry's lock. Index: cron_entries_pkey.
UPDATE opsjobs.cron_entries SET is_paused = false, paused_at = NULL, paused_by = NULL, paused_reason = NULL
WHERE name = %(name)s
