-- Allows dispatch from queues again. The caller has locked the rows.
-- Run by actions. Index: queues_pkey.
UPDATE opsjobs.queues
SET is_paused = false, is_draining = false, paused_at = NULL, paused_by = NULL, paused_reason = NULL
WHERE name = ANY (%(names)s::text[])
