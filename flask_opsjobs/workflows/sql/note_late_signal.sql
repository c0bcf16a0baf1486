-- Notes that an early signal is late: a wait for it ended, and none is left.
-- Run after the commit of the signal. Indexes: signals_pkey, steps_waits, steps_waits_left.
UPDATE opsjobs.signals SET outcome = 'late'
WHERE id = %(id)s AND outcome = 'early' AND {is_signal_late.sql}
