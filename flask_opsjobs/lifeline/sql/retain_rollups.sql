-- Removes at most %(limit)s rows for minutes before %(before)s, oldest first.
-- Run by the retain loop and by `flask opsjobs retain`. Index: rollups_pkey.
WITH old AS MATERIALIZED (
    SELECT minute, queue FROM opsjobs.rollups WHERE minute < %(before)s ORDER BY minute LIMIT %(limit)s
)
DELETE FROM opsjobs.rollups t USING old WHERE t.minute = old.minute AND t.queue = old.queue
