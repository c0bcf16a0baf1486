-- Locks the entries of jobs, by name. A transaction that holds an entry relies on which of its jobs have not
-- ended.
-- Rows: opsjobs, by their cron entries.
-- Run by actions, in the transaction of the retry, after the jobs. Indexes: jobs_pkey, cron_entries_pkey.
SELECT FROM opsjobs.cron_entries
WHERE name IN (SELECT cron_entry FROM opsjobs.jobs WHERE id = ANY (%(ids)s::bigint[]))
ORDER BY name FOR UPDATE
