-- Finds the parents behind which these adopted jobs wait for ever, each with its dependents. A parent that
-- failed lets those go that allow failures; one that was canceled or is gone lets nobody go. RQ uses an id
-- again: the newest job of that id counts.
-- Rows: rq.
-- Run by the loop detect. Indexes: jobs_adopted, rq_facts_pkey, jobs_of_rq.
SELECT j.rq_place, wanted.rq_id, parent.id AS parent, parent.task, parent.state, parent.ended_at,
    array_agg(j.id ORDER BY j.id) AS dependents
FROM opsjobs.jobs j JOIN opsjobs.rq_facts f ON f.job_id = j.id AND f.depends_on <> '{}'
CROSS JOIN LATERAL unnest(f.depends_on) AS wanted(rq_id)
LEFT JOIN LATERAL (
    SELECT p.id, p.task, p.state, p.ended_at FROM opsjobs.jobs p
    WHERE p.origin = 'rq' AND p.rq_place = j.rq_place AND p.rq_id = wanted.rq_id
    ORDER BY p.rq_created_at DESC NULLS LAST LIMIT 1
) AS parent ON true
WHERE j.id = ANY (%(ids)s::bigint[]) AND j.state = 'deferred' AND j.origin = 'rq'
    AND (parent.id IS NULL OR parent.state IN ('canceled', 'unknown')
        OR (parent.state = 'failed' AND NOT f.allows_failure))
GROUP BY j.rq_place, wanted.rq_id, parent.id, parent.task, parent.state, parent.ended_at
ORDER BY min(j.id)
LIMIT %(limit)s
