-- Lists the queue names that occur in jobs, at most %(limit)s, in order. Returns one text column. A loose
-- index scan of jobs_by_queue: one probe per name, however many jobs there are. Locks nothing.
-- Rows: both.
-- Run by queues/queries.py for choices and suggestions.
WITH RECURSIVE names (name) AS (
    (SELECT queue FROM opsjobs.jobs ORDER BY queue LIMIT 1)
    UNION ALL
    SELECT (SELECT queue FROM opsjobs.jobs WHERE queue > names.name ORDER BY queue LIMIT 1)
    FROM names
    WHERE names.name IS NOT NULL
)
SELECT name FROM names WHERE name IS NOT NULL LIMIT %(limit)s
