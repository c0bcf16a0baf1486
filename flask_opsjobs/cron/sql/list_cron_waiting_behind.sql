-- Lists the entries that have a job waiting behind another. Locks nothing.
-- Rows: opsjobs, by their cron entries.
-- Run by the cron loop. Index: jobs_of_cron.
SELECT DISTINCT cron_entry FROM opsjobs.jobs
WHERE cron_entry IS NOT NULL AND ended_at IS NULL AND state = 'deferred' ORDER BY cron_entry LIMIT 1000
