-- Removes the oldest signals that came before %(before)s, at most %(limit)s. One that nobody took becomes
-- `unmatched` instead, and stays for the same time again. Returns a row for each that it removed.
-- SKIP LOCKED: a wait takes that signal right now.
-- Run by the retain loop and by `flask opsjobs retain`. Index: signals_to_retain.
WITH missed AS MATERIALIZED (
    SELECT id FROM opsjobs.signals
    WHERE at >= %(unmatched_before)s AND at < %(before)s AND outcome IN ('early', 'ambiguous')
    ORDER BY at LIMIT %(limit)s FOR UPDATE SKIP LOCKED
), closed AS (
    UPDATE opsjobs.signals s SET outcome = 'unmatched' FROM missed m WHERE s.id = m.id
), old AS MATERIALIZED (
    SELECT id FROM opsjobs.signals
    WHERE at < %(before)s AND (outcome IN ('taken', 'late') OR at < %(unmatched_before)s)
    ORDER BY at LIMIT %(limit)s FOR UPDATE SKIP LOCKED
)
DELETE FROM opsjobs.signals s USING old WHERE s.id = old.id
