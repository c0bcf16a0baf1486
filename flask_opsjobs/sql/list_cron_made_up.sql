-- The newest slots of an entry that somebody ran by hand. Locks nothing. Run by the doorway. Index: cron_slots_by_entry.
SELECT slot_at FROM opsjobs.cron_slots
WHERE entry = %(entry)s AND fate = 'manual'
ORDER BY slot_at DESC, id DESC LIMIT %(most)s * 10
