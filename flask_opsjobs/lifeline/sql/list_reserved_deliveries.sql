-- Lists the deliveries that workers reported as reserved in their last heartbeat, as `id-dispatch_no`.
-- Leaves out workers that have ended.
-- Run by the recall loop. Index: workers_alive.
SELECT DISTINCT delivery FROM opsjobs.workers, unnest(reserved) AS delivery WHERE ended_at IS NULL
