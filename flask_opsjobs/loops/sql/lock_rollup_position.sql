-- Reads from and until when minutes have been counted; both NULL before the first pass. Locks the row, for whoever
-- counts next. Run by the roll_up loop. Index: rollup_position_pkey.
SELECT counted_from, counted_until FROM opsjobs.rollup_position WHERE id = 1 FOR UPDATE
