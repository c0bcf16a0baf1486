-- Deletes final jobs with their attempts and outputs. A unique lock has no foreign key: it stays until it
-- expires. The caller has locked the rows. Counts the deleted jobs for the integrity check.
-- Rows: both.
-- Run by actions. Index: jobs_pkey.
WITH gone AS (
    DELETE FROM opsjobs.jobs WHERE id = ANY (%(ids)s::bigint[]) AND state = ANY (%(sources)s::text[])
    RETURNING queue, origin
)
INSERT INTO opsjobs.job_count_deltas (at, queue, deleted)
SELECT %(now)s, queue, count(*) FROM gone WHERE origin = 'opsjobs' GROUP BY queue
