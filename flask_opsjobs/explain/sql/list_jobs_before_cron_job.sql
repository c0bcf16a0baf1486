-- Lists the oldest jobs of each of these cron entries that must end before its deferred job is released, at
-- most %(most)s of each. Locks nothing.
-- Rows: opsjobs, by their cron entries.
-- Run by explain/queries.py. Index: jobs_of_cron.
SELECT e.entry, j.id FROM unnest(%(entries)s::text[]) AS e(entry)
CROSS JOIN LATERAL (
    SELECT id FROM opsjobs.jobs
    WHERE cron_entry = e.entry AND ended_at IS NULL AND state <> 'deferred'
    ORDER BY id LIMIT %(most)s) AS j
ORDER BY e.entry, j.id
