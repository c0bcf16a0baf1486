-- Reads from when and until when minutes have been counted; both are NULL before the first pass. Locks the
-- row, so that one process counts at a time.
-- Run by the roll_up loop. Index: rollup_position_pkey.
SELECT counted_from, counted_until FROM opsjobs.rollup_position WHERE id = 1 FOR UPDATE
