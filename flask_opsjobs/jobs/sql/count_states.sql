-- Counts the jobs in each of %(states)s and stops at %(most)s. Returns state, number. Locks nothing.
-- Rows: both.
-- Run by jobs/queries.py for the tabs above a list. Index: jobs_by_state, at most %(most)s entries a state.
SELECT states.state, counted.number
FROM unnest(%(states)s::text[]) AS states (state), LATERAL (
    SELECT count(*) AS number
    FROM (SELECT FROM opsjobs.jobs AS job WHERE job.state = states.state LIMIT %(most)s) AS sampled
) AS counted
