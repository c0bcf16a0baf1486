-- Stops dispatch from queues. In a draining queue, jobs that are in Redis may still run. The caller has
-- locked the rows.
-- Run by actions. Index: queues_pkey.
UPDATE opsjobs.queues
SET is_paused = true, is_draining = %(is_draining)s,
    paused_at = %(now)s, paused_by = %(actor)s, paused_reason = %(reason)s
WHERE name = ANY (%(names)s::text[])
