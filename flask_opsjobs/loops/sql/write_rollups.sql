-- Writes the counts of one minute and queue. A minute that was counted before is overwritten, never added to.
-- Run by the roll_up loop. Index: rollups_pkey.
INSERT INTO opsjobs.rollups (minute, queue, finished, failed, canceled, waits, runs)
VALUES (%(minute)s, %(queue)s, %(finished)s, %(failed)s, %(canceled)s,
    %(waits)s::integer[], %(runs)s::integer[])
ON CONFLICT (minute, queue) DO UPDATE SET finished = excluded.finished, failed = excluded.failed,
    canceled = excluded.canceled, waits = excluded.waits, runs = excluded.runs
