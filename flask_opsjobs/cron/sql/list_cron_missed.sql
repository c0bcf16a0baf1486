-- Lists the newest rows of missed slots of an entry that are not all caught up: first and last slot, their
-- number, the expression and zone at that time, and the slots that were caught up. A job that somebody runs
-- now is not mistaken for one of them, since these rows end before now. Locks nothing. Run by actions.
-- Indexes: cron_slots_missed, or cron_slots_by_entry where many were missed; cron_slots_by_entry.
SELECT m.slot_at, m.until_at, m.slots, m.expression, m.zone, caught_up.slots
FROM opsjobs.cron_slots m
CROSS JOIN LATERAL (
    SELECT coalesce(array_agg(DISTINCT c.slot_at), '{}') AS slots FROM opsjobs.cron_slots c
    WHERE c.entry = m.entry AND c.result = 'manual' AND c.slot_at BETWEEN m.slot_at AND m.until_at
) AS caught_up
WHERE m.entry = %(entry)s AND m.result = 'missed' AND cardinality(caught_up.slots) < m.slots
ORDER BY m.slot_at DESC, m.id DESC LIMIT %(most)s
