-- Locks entries by name, so that only one transaction at a time decides their slots and releases waiting
-- jobs.
-- Run by the cron loop, by endings, by actions. Index: cron_entries_pkey.
SELECT FROM opsjobs.cron_entries WHERE name = ANY (%(names)s::text[]) ORDER BY name FOR UPDATE
