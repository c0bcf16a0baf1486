-- Writes the result of one slot or of several. The unique index guarantees exactly one result per slot.
-- Run by the cron loop and actions under the entry's lock. Index: cron_slots_once.
INSERT INTO opsjobs.cron_slots (entry, slot_at, until_at, slots, result, why, expression, zone,
    decided_at, decided_by, job_id)
VALUES (%(entry)s, %(slot_at)s, %(until_at)s, %(slots)s, %(result)s, %(why)s, %(expression)s, %(zone)s,
    %(now)s, %(decided_by)s, %(job_id)s)
