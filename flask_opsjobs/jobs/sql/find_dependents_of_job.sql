-- Finds the adopted jobs that RQ has wait for this one, the oldest first: RQ's id, id, task, state and end.
-- Locks nothing.
-- Rows: rq.
-- Run by pages. Indexes: jobs_pkey, rq_facts_depends_on.
SELECT d.rq_id, d.id, d.task, d.state, d.ended_at
FROM opsjobs.jobs j
JOIN opsjobs.rq_facts f ON f.depends_on @> ARRAY[j.rq_id] AND f.depends_on <> '{}'
JOIN opsjobs.jobs d ON d.id = f.job_id AND d.origin = 'rq' AND d.rq_place = j.rq_place
WHERE j.id = %(id)s AND d.created_at >= j.created_at
ORDER BY d.id LIMIT %(most)s
