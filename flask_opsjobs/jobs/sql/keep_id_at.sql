-- Keeps in a setting of the transaction the smallest id of a managed job that was enqueued at the latest of
-- %(moments)s or later, so that statements of the same round trip can compare with it. With %(is_end)s it is
-- the earliest of them, and the largest id there is when an adopted job has this id or a greater one: such a
-- job gets its id when it is first seen, which may be long after its creation. Where a moment is NULL it is
-- now plus the span in %(spans)s. The id is the greatest one plus one when all jobs are older. Ids of managed
-- jobs grow with time, except for the difference between the clocks of hosts: a caller adds a margin and
-- compares created_at as well.
-- A binary search: about 24 probes of jobs_pkey for 10 million rows. Locks nothing.
-- Rows: both.
-- Run by jobs/queries.py for `created:`. Indexes: jobs_pkey, jobs_adopted.
WITH RECURSIVE point (moment) AS MATERIALIZED (
    SELECT CASE WHEN %(is_end)s THEN min(asked.moment) ELSE max(asked.moment) END
    FROM unnest(%(moments)s::timestamptz[], %(spans)s::interval[]) AS point (moment, span),
        LATERAL (SELECT coalesce(point.moment, now() + point.span) AS moment) AS asked
), search (low, high) AS (
    SELECT coalesce((SELECT id FROM opsjobs.jobs WHERE origin = 'opsjobs' ORDER BY id LIMIT 1), 1),
           coalesce((SELECT id FROM opsjobs.jobs WHERE origin = 'opsjobs' ORDER BY id DESC LIMIT 1), 0) + 1
    UNION ALL
    SELECT CASE WHEN probe.is_older THEN probe.id + 1 ELSE search.low END,
           CASE WHEN probe.is_older THEN search.high ELSE (search.low + search.high) / 2 END
    FROM search, LATERAL (
        SELECT job.id, job.created_at < (SELECT moment FROM point) AS is_older
        FROM opsjobs.jobs AS job
        WHERE job.id >= (search.low + search.high) / 2 AND job.origin = 'opsjobs'
        ORDER BY job.id
        LIMIT 1
    ) AS probe
    WHERE search.low < search.high
), found (id) AS (
    SELECT max(low) FROM search
)
SELECT set_config(%(setting)s, CASE WHEN %(is_end)s AND EXISTS (
    SELECT FROM opsjobs.jobs AS job WHERE job.id >= found.id AND job.origin = 'rq')
    THEN 9223372036854775807 ELSE found.id END::text, true)
FROM found
