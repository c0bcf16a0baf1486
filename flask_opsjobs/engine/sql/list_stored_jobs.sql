-- Lists the jobs as they are, oldest first: of all, of some ids, of one task, or both; each with its output.
-- No lock, and no limit.
-- Run by a host's tests, whose databases are small. Indexes: jobs_pkey, jobs_by_task.
SELECT j.id, j.task, j.queue, j.state, j.args, j.priority, j.tags, j.meta, j.attempt, j.due_at, j.ended_by, j.error,
       o.value AS output
FROM opsjobs.jobs j LEFT JOIN opsjobs.outputs o ON o.job_id = j.id
WHERE j.origin = 'opsjobs'
  AND (%(ids)s::bigint[] IS NULL OR j.id = ANY (%(ids)s::bigint[]))
  AND (%(task)s::text IS NULL OR j.task = %(task)s::text)
ORDER BY j.id
