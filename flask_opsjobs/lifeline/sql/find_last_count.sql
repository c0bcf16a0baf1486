-- Finds when the integrity check last counted, and how long that took; NULL before the first count.
-- Run by the check_integrity loop. A row for each queue.
SELECT max(counted_at), max(took_seconds) FROM opsjobs.integrity_checks
