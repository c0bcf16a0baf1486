-- The newest rows of missed slots of an entry: first and last slot, how many, the expression and zone that counted then.
-- Locks nothing. Run by the doorway. Index: cron_slots_missed, or
-- cron_slots_by_entry where many were.
SELECT slot_at, until_at, slots, expression, zone FROM opsjobs.cron_slots
WHERE entry = %(entry)s AND fate = 'missed'
ORDER BY slot_at DESC, id DESC LIMIT %(most)s
