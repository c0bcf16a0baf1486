-- Finds when the integrity check last counted, and how many seconds that took; NULL before the first count.
-- Run by the check_integrity loop. The table has one row for each queue.
SELECT max(counted_at), max(took_seconds) FROM opsjobs.integrity_checks
