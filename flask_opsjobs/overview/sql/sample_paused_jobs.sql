-- Lists the first %(tasks)s paused tasks by name, each with its due jobs by queue: task, paused_at,
-- paused_by, paused_reason, queue, number, since when the first of them is due. Reads only the oldest
-- %(most)s due jobs, as sample_live_jobs.sql does, and none when no task is paused; a task without any has
-- one row with a NULL queue. Locks nothing.
-- Rows: opsjobs, since no other is available.
-- Run by overview/queries.py. Indexes: task_pauses_pkey, jobs_by_state.
WITH sampled AS MATERIALIZED (
    SELECT task, queue, due_at FROM opsjobs.jobs
    WHERE (state, id) >= ('available', 0) AND state <= 'available'
        AND EXISTS (SELECT FROM opsjobs.task_pauses)
    ORDER BY state, id LIMIT %(most)s
)
SELECT task, p.paused_at, p.paused_by, p.paused_reason, d.queue, coalesce(d.number, 0) AS number, d.since
FROM (SELECT * FROM opsjobs.task_pauses ORDER BY task LIMIT %(tasks)s) AS p
LEFT JOIN (
    SELECT task, queue, count(*) AS number, min(due_at) AS since FROM sampled GROUP BY task, queue
) AS d USING (task)
ORDER BY task, queue
