-- The names of plain RQ workers that are not known to have ended.
-- Run by the observe loop. Index: executors_alive.
SELECT name FROM opsjobs.executors WHERE ended_at IS NULL AND kind = 'plain'
