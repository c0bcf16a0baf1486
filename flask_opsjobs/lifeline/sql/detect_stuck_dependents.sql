-- Finds the parents behind which these adopted jobs wait for ever, each with its dependents and how many wait
-- behind it in all: also those that wait for a dependent, and so on. At most %(most_behind)s are counted, the
-- nearest first, for all parents together; `is_least` says that there may be more. A parent that failed lets
-- those go that allow failures; one that was canceled or is gone lets nobody go. RQ uses an id again: the
-- newest job of that id counts.
-- Rows: rq.
-- Run by the loop detect. Indexes: jobs_adopted, rq_facts_pkey, rq_facts_depends_on, jobs_of_rq.
WITH RECURSIVE stuck AS MATERIALIZED (
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
), behind (rq_place, rq_id, id) AS (
    SELECT rq_place, rq_id, unnest(dependents) FROM stuck
    UNION
    SELECT b.rq_place, b.rq_id, d.id
    FROM behind b JOIN opsjobs.jobs w ON w.id = b.id
    JOIN opsjobs.rq_facts f ON f.depends_on @> ARRAY[w.rq_id] AND f.depends_on <> '{}'
    JOIN opsjobs.jobs d ON d.id = f.job_id AND d.state = 'deferred' AND d.origin = 'rq'
        AND d.rq_place = w.rq_place
), counted AS MATERIALIZED (SELECT * FROM behind LIMIT %(most_behind)s)
SELECT stuck.*, greatest(cardinality(dependents), number) AS number, is_least
FROM stuck,
LATERAL (
    SELECT count(*) AS number FROM counted
    WHERE counted.rq_place = stuck.rq_place AND counted.rq_id = stuck.rq_id) AS of_parent,
LATERAL (SELECT count(*) >= %(most_behind)s AS is_least FROM counted) AS of_all
ORDER BY dependents[1]
LIMIT %(limit)s
