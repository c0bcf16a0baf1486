-- Appends how jobs of each task ended, with their waits and runs, in one row per task, minute and state.
-- Folding adds the rows up and deletes them. Locks nothing and updates nothing: many processes end jobs of
-- one task at once.
-- Part of each statement that ends jobs: `moved` are the jobs that it moved.
INSERT INTO opsjobs.task_end_deltas (task, minute, state, number, waits, runs, peak_kb)
SELECT task, date_trunc('minute', ended_at), state, count(*),
    array_agg(started_at - due_at) FILTER (WHERE started_at IS NOT NULL
        AND ended_by IN ('returned', 'exhausted')),
    array_agg(ended_at - started_at) FILTER (WHERE started_at IS NOT NULL
        AND ended_by IN ('returned', 'exhausted')),
    max(peak_kb)
FROM moved WHERE state IN ('finished', 'failed', 'canceled')
GROUP BY task, date_trunc('minute', ended_at), state
