-- Retires an entry that code no longer declares. Run by the cron loop under the entry's lock. Index:
-- cron_entries_pkey.
UPDATE opsjobs.cron_entries SET retired_at = %(now)s WHERE name = %(name)s AND retired_at IS NULL
