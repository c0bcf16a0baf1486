-- Lists the newest rows of missed slots of an entry of which some are not made up for: first and last slot, how many,
-- the expression and zone that counted then, and those made up for. What somebody runs now is no slot of such a row:
-- they end before it. Locks nothing. Run by actions. Indexes: cron_slots_missed, or cron_slots_by_entry where many
-- were; cron_slots_by_entry.
SELECT m.slot_at, m.until_at, m.slots, m.expression, m.zone, made.up
FROM opsjobs.cron_slots m
CROSS JOIN LATERAL (
    SELECT coalesce(array_agg(DISTINCT c.slot_at), '{}') AS up FROM opsjobs.cron_slots c
    WHERE c.entry = m.entry AND c.result = 'manual' AND c.slot_at BETWEEN m.slot_at AND m.until_at
) AS made
WHERE m.entry = %(entry)s AND m.result = 'missed' AND cardinality(made.up) < m.slots
ORDER BY m.slot_at DESC, m.id DESC LIMIT %(most)s
