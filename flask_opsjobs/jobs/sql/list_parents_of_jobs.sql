-- Lists what RQ has adopted jobs wait for, at most %(most)s of each: RQ's id of each parent, and id, task,
-- state and end of its row. These are NULL when no row is known. RQ uses an id again: the newest job of that
-- id counts. Locks nothing.
-- Rows: rq.
-- Run by pages and by `explain`. Indexes: jobs_pkey, rq_facts_pkey, jobs_of_rq.
SELECT j.id AS job_id, wanted.rq_id, parent.id, parent.task, parent.state, parent.ended_at
FROM opsjobs.jobs j JOIN opsjobs.rq_facts f ON f.job_id = j.id,
    LATERAL unnest(f.depends_on[:%(most)s]) WITH ORDINALITY AS wanted (rq_id, place)
LEFT JOIN LATERAL (
    SELECT p.id, p.task, p.state, p.ended_at FROM opsjobs.jobs p
    WHERE p.origin = 'rq' AND p.rq_place = j.rq_place AND p.rq_id = wanted.rq_id
    ORDER BY p.rq_created_at DESC NULLS LAST LIMIT 1
) AS parent ON true
WHERE j.id = ANY (%(ids)s::bigint[])
ORDER BY j.id, wanted.place
