-- Removes results of cron slots that were decided before %(before)s, at most %(limit)s, oldest first. Keeps
-- the result of a slot whose job has not ended, because the end has still to be recorded in it.
-- SKIP LOCKED: the end of its job is being recorded in that slot.
-- Run by the retain loop and by `flask opsjobs retain`. Index: cron_slots_to_retain.
WITH old AS MATERIALIZED (
    SELECT id FROM opsjobs.cron_slots
    WHERE decided_at < %(before)s AND (job_id IS NULL OR ended_at IS NOT NULL)
    ORDER BY decided_at LIMIT %(limit)s FOR UPDATE SKIP LOCKED
)
DELETE FROM opsjobs.cron_slots s USING old WHERE s.id = old.id
