-- Counts the signals of each outcome, up to %(most)s. Locks nothing.
-- Each outcome is written out, as a range of one value: then Postgres knows how many signals have it, and
-- walks the index in its order, also for an outcome that is rare.
-- Run by the page of signals. Index: signals_by_outcome.
SELECT 'early' AS outcome, count(*) FROM (
    SELECT FROM opsjobs.signals WHERE outcome BETWEEN 'early' AND 'early'
    ORDER BY outcome, id LIMIT %(most)s) AS first
UNION ALL
SELECT 'taken' AS outcome, count(*) FROM (
    SELECT FROM opsjobs.signals WHERE outcome BETWEEN 'taken' AND 'taken'
    ORDER BY outcome, id LIMIT %(most)s) AS first
UNION ALL
SELECT 'late' AS outcome, count(*) FROM (
    SELECT FROM opsjobs.signals WHERE outcome BETWEEN 'late' AND 'late'
    ORDER BY outcome, id LIMIT %(most)s) AS first
UNION ALL
SELECT 'ambiguous' AS outcome, count(*) FROM (
    SELECT FROM opsjobs.signals WHERE outcome BETWEEN 'ambiguous' AND 'ambiguous'
    ORDER BY outcome, id LIMIT %(most)s) AS first
UNION ALL
SELECT 'unmatched' AS outcome, count(*) FROM (
    SELECT FROM opsjobs.signals WHERE outcome BETWEEN 'unmatched' AND 'unmatched'
    ORDER BY outcome, id LIMIT %(most)s) AS first
