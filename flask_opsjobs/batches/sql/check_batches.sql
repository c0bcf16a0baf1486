-- Finds what contradicts the invariants of batches; no row when everything is well. Meant for a moment in
-- which no process folds: a batch that is being folded right now may be listed. Batches of 100,000 members or
-- more are left out.
-- Rows: opsjobs, by their batches.
-- Run by the doctor and by tests, read-only. Indexes: jobs_of_batch, batch_ends_pkey,
-- batch_end_events_by_batch, callbacks_pkey.
WITH chosen AS MATERIALIZED (
    SELECT * FROM opsjobs.batches b WHERE (%(ids)s::bigint[] IS NULL OR id = ANY (%(ids)s::bigint[]))
        AND enqueued + coalesce((SELECT sum(number) FROM opsjobs.batch_end_events
            WHERE batch_id = b.id AND kind = 'enqueued'), 0) < 100000
), event AS MATERIALIZED (
    SELECT e.batch_id, e.kind, e.ended_by, sum(e.number)::bigint AS number
    FROM chosen b JOIN opsjobs.batch_end_events e ON e.batch_id = b.id GROUP BY e.batch_id, e.kind, e.ended_by
), member AS MATERIALIZED (
    -- In the order of the index and limited: of batches that are large on average, the planner would else
    -- read all jobs to count the members of a few.
    SELECT b.id AS batch_id, j.state, coalesce(j.ended_by, '') AS ended_by, count(*) AS number
    FROM chosen b CROSS JOIN LATERAL (
        SELECT state, ended_by FROM opsjobs.jobs WHERE batch_id = b.id
        ORDER BY batch_id, state, id LIMIT 100000) AS j
    GROUP BY b.id, j.state, j.ended_by
), counted AS MATERIALIZED (
    SELECT batch_id, state, ended_by, sum(number)::bigint AS number
    FROM (
        SELECT e.batch_id, e.state, e.ended_by, e.number
        FROM chosen b JOIN opsjobs.batch_ends e ON e.batch_id = b.id
        UNION ALL
        SELECT batch_id, kind, ended_by, number FROM event WHERE kind <> 'enqueued') AS n
    GROUP BY batch_id, state, ended_by
), total AS MATERIALIZED (
    SELECT b.*, b.enqueued + coalesce((
            SELECT sum(number) FROM event e WHERE e.batch_id = b.id AND e.kind = 'enqueued'), 0) AS added,
        coalesce((SELECT sum(number) FROM counted c WHERE c.batch_id = b.id), 0) AS ends,
        coalesce((SELECT sum(number) FROM member m WHERE m.batch_id = b.id), 0) AS members,
        coalesce((SELECT sum(number) FROM member m WHERE m.batch_id = b.id
            AND m.state NOT IN ('finished', 'failed', 'canceled')), 0) AS open_members,
        EXISTS (SELECT FROM event e WHERE e.batch_id = b.id) AS has_events
    FROM chosen b
)
SELECT 'added' AS code, id AS batch,
    members || ' members are stored, but ' || added || ' were counted' AS says
FROM total WHERE members > added
UNION ALL
SELECT 'ends', coalesce(c.batch_id, m.batch_id),
    coalesce(m.number, 0) || ' members are ' || coalesce(c.state, m.state) || ' ('
    || coalesce(c.ended_by, m.ended_by) || '), but ' || coalesce(c.number, 0) || ' ends were counted'
FROM counted c FULL JOIN (
    SELECT * FROM member WHERE state IN ('finished', 'failed', 'canceled')) AS m
    ON m.batch_id = c.batch_id AND m.state = c.state AND m.ended_by = c.ended_by
JOIN chosen b ON b.id = coalesce(c.batch_id, m.batch_id)
-- Members of a batch that has ended may be deleted.
WHERE coalesce(m.number, 0) > coalesce(c.number, 0)
   OR (b.ended_at IS NULL AND coalesce(m.number, 0) < coalesce(c.number, 0))
UNION ALL
SELECT 'not_ended', id, 'it is closed and has no open member, but has not ended'
FROM total WHERE state = 'running' AND open_members = 0 AND NOT has_events
UNION ALL
SELECT 'ended_early', id, 'it is ' || state || ', but ' || open_members || ' members are open'
FROM total WHERE ended_at IS NOT NULL AND open_members > 0
UNION ALL
SELECT 'sum', id, added || ' members were counted, ' || ends || ' ends and ' || lost || ' lost'
FROM total WHERE ended_at IS NOT NULL AND added <> ends + lost
UNION ALL
SELECT 'callback', b.id, 'its end number ' || b.end_no || ' was not reported'
FROM chosen b WHERE b.ended_at IS NOT NULL AND b.on_end IS NOT NULL
    AND NOT EXISTS (SELECT FROM opsjobs.callbacks c
        WHERE c.of = 'batch' AND c.of_id = b.id AND c.end_no = b.end_no AND c.event = 'end')
UNION ALL
SELECT 'failure', b.id, 'its first failure was not reported'
FROM chosen b WHERE b.first_failed_at IS NOT NULL AND b.on_failure IS NOT NULL
    AND NOT EXISTS (SELECT FROM opsjobs.callbacks c
        WHERE c.of = 'batch' AND c.of_id = b.id AND c.event = 'failure')
ORDER BY batch, code
