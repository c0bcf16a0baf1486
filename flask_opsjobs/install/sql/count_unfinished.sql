-- Counts the jobs in each of %(states)s, those in which a job has not ended. Locks nothing.
-- Rows: opsjobs, by origin.
-- Run by `flask opsjobs uninstall`. Index: any of jobs by state; it reads all such jobs.
SELECT j.state, count(*) FROM opsjobs.jobs j
WHERE j.origin = 'opsjobs' AND j.state = ANY(%(states)s::text[])
GROUP BY j.state
ORDER BY j.state
