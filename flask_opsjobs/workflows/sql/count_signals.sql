-- Counts the signals of each outcome, up to %(most)s. Locks nothing.
-- Run by the page of signals. Index: signals_by_outcome.
SELECT wanted.outcome, (
    SELECT count(*) FROM (
        SELECT outcome FROM opsjobs.signals g
        WHERE g.outcome = wanted.outcome ORDER BY g.outcome LIMIT %(most)s
    ) AS first)
FROM unnest(%(outcomes)s::text[]) AS wanted (outcome)
