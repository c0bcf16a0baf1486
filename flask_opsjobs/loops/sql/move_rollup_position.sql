-- Records which minutes have been counted, in the transaction that counted them.
-- Run by the roll_up loop. Index: rollup_position_pkey.
INSERT INTO opsjobs.rollup_position (id, counted_from, counted_until) VALUES (1, %(start)s, %(end)s)
ON CONFLICT (id) DO UPDATE SET counted_from = excluded.counted_from, counted_until = excluded.counted_until
