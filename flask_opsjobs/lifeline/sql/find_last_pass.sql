-- Finds when any copy of a loop last made a pass before now; NULL when there was none. A pass recorded before
-- the clock was stepped back has a time in the future and is ignored.
-- Run by each loop at the start of a pass. Index: loop_runs_latest.
SELECT max(last_at) FROM opsjobs.loop_runs WHERE loop = %(loop)s AND last_at <= %(now)s
