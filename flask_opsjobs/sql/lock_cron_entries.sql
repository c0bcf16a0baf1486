-- Locks entries by name, so that slots are decided, and jobs behind others released, by one at a time.
-- Run by the cron loop, by endings, by the doorway. Index: cron_entries_pkey.
SELECT FROM opsjobs.cron_entries WHERE name = ANY (%(names)s::text[]) ORDER BY name FOR UPDATE
