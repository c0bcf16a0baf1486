-- Lists entries with the columns that decisions need, by name: those of %(names)s, or all that are not
-- retired. Locks nothing.
-- Run by the cron loop and actions. Few rows; index for names: cron_entries_pkey.
SELECT name, origin, task, expression, zone, overlap, catch_up, catch_up_limit, args, checked_until,
    created_at, created_by, changed_at, retired_at, is_paused, paused_at, paused_by, paused_reason
FROM opsjobs.cron_entries
WHERE CASE WHEN %(names)s::text[] IS NULL THEN retired_at IS NULL ELSE name = ANY (%(names)s::text[]) END
ORDER BY name
