-- Removes final jobs with their attempts and outputs. A unique lock has no foreign key and stays as long as it guards.
-- The caller holds the rows. The removal is counted, so that the books balance.
-- Run by the doorway. Index: jobs_pkey.
WITH gone AS (
    DELETE FROM opsjobs.jobs WHERE id = ANY (%(ids)s::bigint[]) AND state = ANY (%(sources)s::text[])
    RETURNING queue
)
INSERT INTO opsjobs.birth_slips (at, queue, pruned) SELECT %(now)s, queue, count(*) FROM gone GROUP BY queue
