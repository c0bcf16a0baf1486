-- Clears how the jobs of slots ended, since they are retried and will end again. Until then retention keeps
-- these slots. Run by actions, in the transaction of the retry. Index: cron_slots_by_job.
UPDATE opsjobs.cron_slots SET job_state = NULL, ended_at = NULL
WHERE job_id = ANY (%(ids)s::bigint[]) AND job_state IS NOT NULL
