-- Adds the slots of cron entries that were decided from %(start)s until before %(end)s to the totals of their
-- results. Each minute is added once: the caller moves its position in the same transaction.
-- Run by the roll_up loop. Indexes: cron_slots_to_retain, slot_totals_pkey.
INSERT INTO opsjobs.slot_totals AS t (result, slots)
SELECT result, sum(slots) FROM opsjobs.cron_slots WHERE decided_at >= %(start)s AND decided_at < %(end)s
GROUP BY result ORDER BY result
ON CONFLICT (result) DO UPDATE SET slots = t.slots + excluded.slots
