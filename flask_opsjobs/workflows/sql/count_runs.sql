-- Counts the runs of each state, up to %(most)s. Locks nothing.
-- Run by the page of workflows. Index: workflows_by_state.
SELECT wanted.state, (
    SELECT count(*) FROM (
        SELECT state FROM opsjobs.workflows w
        WHERE (w.state, w.id) >= (wanted.state, 0) AND w.state <= wanted.state
        ORDER BY w.state, w.id LIMIT %(most)s
    ) AS first)
FROM unnest(%(states)s::text[]) AS wanted (state)
