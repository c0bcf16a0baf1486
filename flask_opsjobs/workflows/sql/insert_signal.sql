-- Stores a signal, or counts it on the first one with the same `dedupe`. Returns its id, and whether it was
-- sent before. It is late when a wait for it has ended lately and none is left that could take it; else it is
-- early, until `advance` gives it to a wait. Stores and returns nothing when it is for a run that does not
-- exist, unless it was sent before. Waits for another transaction that sends the same signal.
-- Run in the host's transaction by `signal`. Indexes: signals_dedupe, steps_waits, steps_waits_left,
-- workflows_pkey.
INSERT INTO opsjobs.signals AS g (name, key, run, dedupe, payload, at, by, outcome)
SELECT %(name)s, %(key)s, %(run)s::bigint, %(dedupe)s::text, %(payload)s::jsonb, clock_timestamp(), %(by)s,
    CASE WHEN {is_signal_late.sql} THEN 'late' ELSE 'early' END
WHERE %(run)s::bigint IS NULL
    OR EXISTS (SELECT FROM opsjobs.workflows w WHERE w.id = %(run)s::bigint)
    OR EXISTS (
        SELECT FROM opsjobs.signals s
        WHERE s.name = %(name)s AND s.key = %(key)s AND s.dedupe = %(dedupe)s::text)
ON CONFLICT (name, key, dedupe) WHERE dedupe IS NOT NULL
DO UPDATE SET duplicates = g.duplicates + 1, last_duplicate_at = clock_timestamp()
RETURNING id, duplicates > 0 AS is_duplicate
