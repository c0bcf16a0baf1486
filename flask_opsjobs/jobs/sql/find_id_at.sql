-- Finds the smallest id of a managed job that was enqueued at %(moment)s or later, and whether an adopted job
-- has this id or a greater one. Without a moment it is now plus %(span)s. The id is the greatest one plus one
-- when all are older. Ids of managed jobs grow with time, except for the difference between the clocks of
-- hosts: a caller adds a margin and compares created_at as well. An adopted job gets its id when it is first
-- seen, which may be long after its creation.
-- A binary search: about 24 probes of jobs_pkey for 10 million rows. Locks nothing.
-- Rows: both.
-- Run by jobs/queries.py for `created:`. Indexes: jobs_pkey, jobs_adopted.
WITH RECURSIVE search (low, high) AS (
    SELECT coalesce((SELECT id FROM opsjobs.jobs WHERE origin = 'opsjobs' ORDER BY id LIMIT 1), 1),
           coalesce((SELECT id FROM opsjobs.jobs WHERE origin = 'opsjobs' ORDER BY id DESC LIMIT 1), 0) + 1
    UNION ALL
    SELECT CASE WHEN probe.is_older THEN probe.id + 1 ELSE search.low END,
           CASE WHEN probe.is_older THEN search.high ELSE (search.low + search.high) / 2 END
    FROM search, LATERAL (
        SELECT job.id,
               job.created_at < coalesce(%(moment)s::timestamptz, now() + %(span)s::interval) AS is_older
        FROM opsjobs.jobs AS job
        WHERE job.id >= (search.low + search.high) / 2 AND job.origin = 'opsjobs'
        ORDER BY job.id
        LIMIT 1
    ) AS probe
    WHERE search.low < search.high
), found (id) AS (
    SELECT max(low) FROM search
)
SELECT found.id, EXISTS (
    SELECT FROM opsjobs.jobs AS job WHERE job.id >= found.id AND job.origin = 'rq') AS has_adopted
FROM found
