-- Lets nobody else add a note to these subjects until the commit, so that a double click adds one note. Locks
-- them in order, and no row: a note never makes a job or a worker wait.
-- Run by actions, in the transaction of an execution. The caller reads with the next statement.
SELECT count(pg_advisory_xact_lock(hashtextextended('opsjobs note on ' || target, 0)))
FROM (SELECT unnest(%(targets)s::text[]) AS target ORDER BY 1) AS sorted
