-- Stops dispatching from queues; a draining one lets run what lies in Redis.
-- The caller holds the rows. Run by actions. Index: queues_pkey.
UPDATE opsjobs.queues
SET is_paused = true, is_draining = %(is_draining)s, paused_at = %(now)s, paused_by = %(actor)s, paused_reason = %(reason)s
WHERE name = ANY (%(names)s::text[])
