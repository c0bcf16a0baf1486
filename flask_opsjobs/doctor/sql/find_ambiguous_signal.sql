-- Finds the oldest signal for which several waits are open, so that none has taken it.
-- Run by the doctor, read-only. Index: signals_by_outcome.
SELECT id, name FROM opsjobs.signals WHERE outcome = 'ambiguous' ORDER BY outcome, id LIMIT 1
