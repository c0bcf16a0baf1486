-- Reads a signal for the decision about an operator's action. Locks nothing.
-- Run by the action that gives a signal to a wait, first for the preview and again under the lock.
-- Index: signals_pkey.
SELECT id, name, key, run, outcome, payload::text AS payload, taken_by
FROM opsjobs.signals WHERE id = %(id)s
