-- Lists the task names that occur in jobs, at most %(limit)s, in order. Returns one text column. A loose
-- index scan of jobs_by_task: one probe per name, however many jobs there are. Locks nothing.
-- Rows: both.
-- Run by jobs/queries.py for choices and suggestions.
WITH RECURSIVE names (name) AS (
    (SELECT task FROM opsjobs.jobs ORDER BY task LIMIT 1)
    UNION ALL
    SELECT (SELECT task FROM opsjobs.jobs WHERE task > names.name ORDER BY task LIMIT 1)
    FROM names
    WHERE names.name IS NOT NULL
)
SELECT name FROM names WHERE name IS NOT NULL LIMIT %(limit)s
