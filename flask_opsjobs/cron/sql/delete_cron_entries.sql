-- Deletes entries that were made at runtime. Run by actions under their locks. Index: cron_entries_pkey.
DELETE FROM opsjobs.cron_entries WHERE name = ANY (%(names)s::text[]) AND origin = 'runtime'
