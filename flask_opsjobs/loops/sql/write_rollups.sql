-- Writes the counts of minutes and queues; %(rows)s is a JSON array of them. A minute that was counted before
-- is overwritten, never added to. Run by the roll_up loop. Index: rollups_pkey.
INSERT INTO opsjobs.rollups (minute, queue, finished, failed, canceled, waits, runs)
SELECT minute, queue, finished, failed, canceled, waits, runs
FROM jsonb_to_recordset(%(rows)s::jsonb) AS given (minute timestamptz, queue text, finished integer,
    failed integer, canceled integer, waits integer[], runs integer[])
ON CONFLICT (minute, queue) DO UPDATE SET finished = excluded.finished, failed = excluded.failed,
    canceled = excluded.canceled, waits = excluded.waits, runs = excluded.runs
