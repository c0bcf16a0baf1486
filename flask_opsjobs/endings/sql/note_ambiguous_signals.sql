-- Notes that several waits are open for signals, so that an operator must choose. Skips locked signals.
-- Run by `advance`. Index: signals_pkey.
UPDATE opsjobs.signals SET outcome = 'ambiguous'
WHERE id IN (
    SELECT id FROM opsjobs.signals WHERE id = ANY (%(ids)s::bigint[]) AND outcome = 'early'
    ORDER BY id FOR UPDATE SKIP LOCKED)
