-- Appends how jobs of each task ended, with their waits and runs in seconds, in one row per task, minute and
-- state.
-- Folding adds the rows up and deletes them. Locks nothing and updates nothing: many processes end jobs of
-- one task at once.
-- Part of each statement that ends jobs: `moved` are the jobs that it moved.
INSERT INTO opsjobs.task_end_deltas (task, minute, state, number, waits, runs, peak_kb)
SELECT task, date_bin('1 minute', ended_at, 'epoch'), state, count(*),
    array_agg(date_part('epoch', started_at - due_at)::real) FILTER (WHERE started_at IS NOT NULL
        AND ended_by IN ('returned', 'exhausted')),
    array_agg(date_part('epoch', ended_at - started_at)::real) FILTER (WHERE started_at IS NOT NULL
        AND ended_by IN ('returned', 'exhausted')),
    max(peak_kb)
FROM moved WHERE state IN ('finished', 'failed', 'canceled')
GROUP BY 1, 2, 3
