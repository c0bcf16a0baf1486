-- Reads what a signal is for. Locks nothing.
-- Run after the commit of the signal. Index: signals_pkey.
SELECT name, key, run, outcome FROM opsjobs.signals WHERE id = %(id)s
