-- Finds between which passes of the cron loop a slot fell: (the last one of the stretches that began before it, the
-- first after it). Each is null when none is known. Locks nothing.
-- Run by the cron loop for a slot that was missed. Index: loop_runs_latest.
SELECT (SELECT max(last_at) FROM opsjobs.loop_runs WHERE loop = 'cron' AND started_at <= %(slot_at)s),
    (SELECT min(started_at) FROM opsjobs.loop_runs WHERE loop = 'cron' AND started_at > %(slot_at)s)
