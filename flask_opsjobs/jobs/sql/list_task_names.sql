-- Lists the names of the tasks that any job bears, at most %(limit)s, in order. Returns one text column.
-- A loose scan of jobs_by_task: one probe per name, whatever the number of jobs; locks nothing.
-- Run by jobs/queries.py for choices and suggestions.
WITH RECURSIVE names (name) AS (
    (SELECT task FROM opsjobs.jobs ORDER BY task LIMIT 1)
    UNION ALL
    SELECT (SELECT task FROM opsjobs.jobs WHERE task > names.name ORDER BY task LIMIT 1)
    FROM names
    WHERE names.name IS NOT NULL
)
SELECT name FROM names WHERE name IS NOT NULL LIMIT %(limit)s
