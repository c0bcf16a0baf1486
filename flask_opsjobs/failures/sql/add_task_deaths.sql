-- Adds deaths to the sums of their task, day (of UTC) and cause.
-- Run by the roll_up loop. Index: task_deaths_pkey.
INSERT INTO opsjobs.task_deaths AS t (task, day, death, number, peak_kb, limit_kb)
SELECT task, day, death, number, peak_kb, limit_kb
FROM jsonb_to_recordset(%(deaths)s::jsonb) AS g(task text, day timestamptz, death text, number bigint,
    peak_kb bigint, limit_kb bigint)
ON CONFLICT (task, day, death) DO UPDATE SET number = t.number + excluded.number,
    peak_kb = greatest(t.peak_kb, excluded.peak_kb), limit_kb = coalesce(excluded.limit_kb, t.limit_kb)
