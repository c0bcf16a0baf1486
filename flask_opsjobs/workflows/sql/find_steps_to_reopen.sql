-- Finds the steps that were canceled only because one of %(ids)s did not finish, over any number of steps. A
-- step stays canceled when another step before it did not finish either. Returns ids.
-- The caller holds the run's lock.
-- Run by actions. Indexes: edges_pkey, edges_by_target, jobs_pkey.
WITH RECURSIVE behind (id) AS (
    SELECT unnest(%(ids)s::bigint[])
    UNION
    SELECT e.to_id FROM behind b
    JOIN opsjobs.edges e ON e.from_id = b.id AND e.on_failure = 'cancel'
    JOIN opsjobs.jobs j ON j.id = e.to_id AND j.ended_by = 'dependency'
), held (id) AS (
    SELECT b.id FROM behind b
    JOIN opsjobs.edges e ON e.to_id = b.id AND e.on_failure = 'cancel'
    JOIN opsjobs.jobs j ON j.id = e.from_id AND j.state IN ('failed', 'canceled')
    WHERE NOT b.id = ANY (%(ids)s::bigint[]) AND e.from_id NOT IN (SELECT id FROM behind)
    UNION
    SELECT e.to_id FROM held h
    JOIN opsjobs.edges e ON e.from_id = h.id AND e.on_failure = 'cancel'
    JOIN behind b ON b.id = e.to_id
    WHERE NOT e.to_id = ANY (%(ids)s::bigint[])
)
SELECT id FROM behind
WHERE id NOT IN (SELECT id FROM held) AND NOT id = ANY (%(ids)s::bigint[])
ORDER BY id
