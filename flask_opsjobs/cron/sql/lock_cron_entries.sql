-- Locks entries by name, so that slots are decided, and jobs behind others released, by one at a time.
-- Run by the cron loop, by endings, by actions. Index: cron_entries_pkey.
SELECT FROM opsjobs.cron_entries WHERE name = ANY (%(names)s::text[]) ORDER BY name FOR UPDATE
