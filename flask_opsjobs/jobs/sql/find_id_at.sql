-- Finds the smallest id of a job that was enqueued at %(moment)s or later. Returns one row with one bigint:
-- the greatest id plus one when all jobs are older. Ids grow with time, except for the difference between the
-- hosts' clocks: the caller adds a margin and compares created_at as well. A binary search: about 24 probes
-- of jobs_pkey for 10 million rows. Locks nothing.
-- Run by jobs/queries.py for `created:`.
WITH RECURSIVE search (low, high) AS (
    SELECT coalesce((SELECT id FROM opsjobs.jobs ORDER BY id LIMIT 1), 1),
           coalesce((SELECT id FROM opsjobs.jobs ORDER BY id DESC LIMIT 1), 0) + 1
    UNION ALL
    SELECT CASE WHEN probe.is_older THEN probe.id + 1 ELSE search.low END,
           CASE WHEN probe.is_older THEN search.high ELSE (search.low + search.high) / 2 END
    FROM search, LATERAL (
        SELECT job.id, job.created_at < %(moment)s AS is_older
        FROM opsjobs.jobs AS job
        WHERE job.id >= (search.low + search.high) / 2
        ORDER BY job.id
        LIMIT 1
    ) AS probe
    WHERE search.low < search.high
)
SELECT max(low) FROM search
