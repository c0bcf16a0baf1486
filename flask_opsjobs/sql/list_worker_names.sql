-- The names of the workers that any job bears, at most %(limit)s, in order. Returns one text column.
-- A loose scan of jobs_by_worker: one probe per name, whatever the number of jobs; locks nothing.
-- Run by jobs/queries.py for choices and suggestions.
WITH RECURSIVE names (name) AS (
    (SELECT worker FROM opsjobs.jobs ORDER BY worker LIMIT 1)
    UNION ALL
    SELECT (SELECT worker FROM opsjobs.jobs WHERE worker > names.name ORDER BY worker LIMIT 1)
    FROM names
    WHERE names.name IS NOT NULL
)
SELECT name FROM names WHERE name IS NOT NULL LIMIT %(limit)s
