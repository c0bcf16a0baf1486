-- Reads the tasks with these names for the decision about an operator's action. Leaves out a task that is not
-- declared, not paused and has no job. One probe of the index tells whether a job has this task: the planner
-- would run an EXISTS as a scan of the table. Counts no jobs: there may be millions. Locks nothing.
-- Rows: both.
-- Run by actions, first for the preview and again under the lock. Indexes: task_pauses_pkey, jobs_by_task.
SELECT n.name, p.paused_at, p.paused_by, p.paused_reason
FROM unnest(%(names)s::text[]) AS n(name)
LEFT JOIN opsjobs.task_pauses p ON p.task = n.name
WHERE p.task IS NOT NULL OR n.name = ANY (%(declared)s::text[])
    OR n.name = (SELECT j.task FROM opsjobs.jobs j WHERE j.task >= n.name ORDER BY j.task LIMIT 1)
ORDER BY n.name
