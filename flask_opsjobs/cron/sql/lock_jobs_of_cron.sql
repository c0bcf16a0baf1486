-- Locks the jobs of an entry that have not ended, in id order, before the entry: the end of a job locks in
-- that order too. Returns ids. Run by the cron loop and actions, before a job of the entry is stopped. Index:
-- jobs_of_cron.
-- Rows: opsjobs, by their cron entries.
SELECT id FROM opsjobs.jobs WHERE cron_entry = %(name)s AND ended_at IS NULL ORDER BY id FOR UPDATE
