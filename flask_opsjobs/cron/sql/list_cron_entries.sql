-- Lists entries with the columns that decisions need, by name: those of %(names)s, or all that are not
-- retired. Beside each, since when its task is paused, by whom and why. Locks nothing.
-- Run by the cron loop and actions. Few rows; index for names: cron_entries_pkey; task_pauses_pkey.
SELECT name, origin, task, expression, zone, overlap, catch_up, catch_up_limit, args, checked_until,
    created_at, created_by, changed_at, retired_at, is_paused, e.paused_at, e.paused_by, e.paused_reason,
    p.paused_at AS task_paused_at, p.paused_by AS task_paused_by,
    p.paused_reason AS task_paused_reason
FROM opsjobs.cron_entries e LEFT JOIN opsjobs.task_pauses p USING (task)
WHERE CASE WHEN %(names)s::text[] IS NULL THEN retired_at IS NULL ELSE name = ANY (%(names)s::text[]) END
ORDER BY name
