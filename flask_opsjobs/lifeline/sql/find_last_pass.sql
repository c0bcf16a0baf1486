-- Finds when any copy of a loop last made a pass, as far as that is before now. Returns one time, null when never.
-- A pass noted before the clock was stepped back lies ahead and does not count.
-- Run by each loop at the start of a pass. Index: loop_runs_latest.
SELECT max(last_at) FROM opsjobs.loop_runs WHERE loop = %(loop)s AND last_at <= %(now)s
