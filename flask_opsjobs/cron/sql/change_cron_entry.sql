-- Changes an entry. Its slots up to now already have their results by the old schedule, under the caller's
-- lock.
-- Run by the cron loop and actions. Index: cron_entries_pkey.
UPDATE opsjobs.cron_entries
SET origin = %(origin)s, task = %(task)s, expression = %(expression)s, zone = %(zone)s, overlap = %(overlap)s,
    catch_up = %(catch_up)s, catch_up_limit = %(catch_up_limit)s::int, args = %(args)s::jsonb,
    retired_at = NULL, changed_at = %(now)s, checked_until = greatest(checked_until, %(now)s)
WHERE name = %(name)s
