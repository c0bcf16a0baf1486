-- What the living executors said in their last beat that they hold, as `id-dispatch_no`.
-- Run by the recall loop. Index: executors_alive.
SELECT DISTINCT held FROM opsjobs.executors, unnest(holding) AS held WHERE ended_at IS NULL
