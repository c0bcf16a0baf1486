-- Counts the signals that came for an open wait and that nobody took, by outcome. Locks nothing.
-- Run by explanations. Index: signals_to_match.
SELECT outcome, count(*) AS number FROM opsjobs.signals
WHERE name = ANY (%(signals)s::text[]) AND key = %(key)s AND outcome IN ('early', 'ambiguous')
  AND (run IS NULL OR run = %(run)s)
GROUP BY outcome
