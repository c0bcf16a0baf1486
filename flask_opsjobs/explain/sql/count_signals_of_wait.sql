-- Counts the signals that came for an open wait and that nobody took, by outcome; those that are late among
-- the newest %(most)s late ones. No row for a job that is no open wait. Locks nothing.
-- Run by explanations. Indexes: steps_pkey, signals_to_match, signals_by_outcome.
WITH wait AS MATERIALIZED (
    SELECT signals, key, workflow_id AS run FROM opsjobs.steps
    WHERE job_id = %(id)s AND kind = 'wait' AND opened_at IS NOT NULL
)
SELECT outcome, count(*) AS number FROM opsjobs.signals
WHERE name = ANY ((SELECT signals FROM wait)::text[]) AND key = (SELECT key FROM wait)
  AND outcome IN ('early', 'ambiguous') AND (run IS NULL OR run = (SELECT run FROM wait))
GROUP BY outcome
UNION ALL
SELECT 'late', count(*) FROM (
    SELECT name, key, run FROM opsjobs.signals
    WHERE outcome BETWEEN 'late' AND 'late' AND (SELECT true FROM wait)
    ORDER BY outcome DESC, id DESC LIMIT %(most)s) AS newest
WHERE name = ANY ((SELECT signals FROM wait)::text[]) AND key = (SELECT key FROM wait)
  AND (run IS NULL OR run = (SELECT run FROM wait))
HAVING count(*) > 0
