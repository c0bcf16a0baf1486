-- Finds when cron loops were running around a slot: (the last pass of loops that started before it, the first
-- start after it). Each is null when it is not known. Locks nothing.
-- Run by the cron loop for a missed slot. Index: loop_runs_latest.
SELECT (SELECT max(last_at) FROM opsjobs.loop_runs WHERE loop = 'cron' AND started_at <= %(slot_at)s),
    (SELECT min(started_at) FROM opsjobs.loop_runs WHERE loop = 'cron' AND started_at > %(slot_at)s)
