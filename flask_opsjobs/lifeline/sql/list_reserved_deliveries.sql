-- Lists what the living workers said in their last heartbeat that they hold, as `id-dispatch_no`.
-- Run by the recall loop. Index: workers_alive.
SELECT DISTINCT delivery FROM opsjobs.workers, unnest(reserved) AS delivery WHERE ended_at IS NULL
