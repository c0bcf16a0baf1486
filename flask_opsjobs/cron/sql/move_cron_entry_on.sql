-- Records that every slot of an entry up to a moment has its result. Never moves back, even if the clock was
-- set back.
-- Run by the cron loop and actions under the entry's lock. Index: cron_entries_pkey.
UPDATE opsjobs.cron_entries SET checked_until = %(until)s WHERE name = %(name)s AND checked_until < %(until)s
