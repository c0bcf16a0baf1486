-- Counts the signals that came for an open wait and that nobody took, by outcome; those that are late among
-- the newest %(most)s late ones. Locks nothing.
-- Run by explanations. Indexes: signals_to_match, signals_by_outcome.
SELECT outcome, count(*) AS number FROM opsjobs.signals
WHERE name = ANY (%(signals)s::text[]) AND key = %(key)s AND outcome IN ('early', 'ambiguous')
  AND (run IS NULL OR run = %(run)s)
GROUP BY outcome
UNION ALL
SELECT 'late', count(*) FROM (
    SELECT name, key, run FROM opsjobs.signals WHERE outcome BETWEEN 'late' AND 'late'
    ORDER BY outcome DESC, id DESC LIMIT %(most)s) AS newest
WHERE name = ANY (%(signals)s::text[]) AND key = %(key)s AND (run IS NULL OR run = %(run)s)
HAVING count(*) > 0
