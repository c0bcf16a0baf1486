-- Lists jobs as they are stored, each with its output, oldest first: all jobs, some ids, one task, or ids of
-- one task. Locks nothing. Has no limit, because the database of a host's test is small.
-- Rows: opsjobs, by origin.
-- Run by a host's tests. Indexes: jobs_pkey, jobs_by_task.
SELECT j.id, j.task, j.queue, j.state, j.args, j.priority, j.tags, j.meta, j.attempt,
       j.due_at, j.ended_by, j.error, o.value AS output
FROM opsjobs.jobs j LEFT JOIN opsjobs.outputs o ON o.job_id = j.id
WHERE j.origin = 'opsjobs'
  AND (%(ids)s::bigint[] IS NULL OR j.id = ANY (%(ids)s::bigint[]))
  AND (%(task)s::text IS NULL OR j.task = %(task)s::text)
ORDER BY j.id
