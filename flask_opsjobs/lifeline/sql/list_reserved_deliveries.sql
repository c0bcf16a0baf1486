-- Lists the deliveries that living workers reported as reserved in their last heartbeat, as `id-dispatch_no`.
-- Run by the recall loop. Index: workers_alive.
SELECT DISTINCT delivery FROM opsjobs.workers, unnest(reserved) AS delivery WHERE ended_at IS NULL
