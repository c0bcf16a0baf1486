-- Creates an entry. Its slots count from now, or from the end of the run history of a deleted entry of that
-- name, if that is later: a clock that was ahead may have decided future slots, and each slot has exactly one
-- result. Writes nothing when the name exists: two processes may start at once, and the second waits here for
-- the first.
-- Run by the cron loop and actions. Indexes: cron_entries_pkey, cron_slots_by_entry.
INSERT INTO opsjobs.cron_entries (name, origin, task, expression, zone, overlap, catch_up, catch_up_limit,
    args, checked_until, created_at, created_by)
VALUES (%(name)s, %(origin)s, %(task)s, %(expression)s, %(zone)s, %(overlap)s, %(catch_up)s,
    %(catch_up_limit)s::int, %(args)s::jsonb, greatest(%(now)s, (
        SELECT until_at FROM opsjobs.cron_slots WHERE entry = %(name)s AND result <> 'manual'
        ORDER BY slot_at DESC LIMIT 1
    )), %(now)s, %(by)s)
ON CONFLICT (name) DO NOTHING
