-- Enters an entry. Its slots count from now on. Writes no row when there is one: two processes may start at once, and the
-- second waits here for the first.
-- Run by the cron loop and the doorway. Index: cron_entries_pkey.
INSERT INTO opsjobs.cron_entries (name, origin, worker, expression, zone, overlap, catch_up, catch_up_limit, args,
    checked_until, created_at, created_by)
VALUES (%(name)s, %(origin)s, %(worker)s, %(expression)s, %(zone)s, %(overlap)s, %(catch_up)s, %(catch_up_limit)s::int,
    %(args)s::jsonb, %(now)s, %(now)s, %(by)s)
ON CONFLICT (name) DO NOTHING
