-- Finds the steps that were canceled only because one of %(ids)s did not finish, over any number of steps. A
-- step stays canceled when another step before it did not finish either, or is lost. Returns ids.
-- LATERAL and OFFSET 0 read each edge by its key, as in find_doomed_steps.
-- The caller holds the run's lock.
-- Rows: opsjobs, by their runs.
-- Run by actions. Indexes: edges_pkey, edges_by_target, jobs_pkey, steps_pkey.
WITH RECURSIVE behind (id) AS (
    SELECT unnest(%(ids)s::bigint[])
    UNION
    SELECT next.id FROM behind b
    CROSS JOIN LATERAL (
        SELECT e.to_id AS id FROM opsjobs.edges e JOIN opsjobs.jobs j ON j.id = e.to_id
        WHERE e.from_id = b.id AND e.on_failure = 'cancel' AND j.ended_by = 'dependency' OFFSET 0) AS next
), held (id) AS (
    SELECT b.id FROM behind b
    CROSS JOIN LATERAL (
        SELECT e.from_id FROM opsjobs.edges e JOIN opsjobs.steps s ON s.job_id = e.from_id
        LEFT JOIN opsjobs.jobs j ON j.id = e.from_id
        WHERE e.to_id = b.id AND e.on_failure = 'cancel'
          AND coalesce(j.state, s.settled) IN ('failed', 'canceled')
        OFFSET 0) AS before
    WHERE NOT b.id = ANY (%(ids)s::bigint[]) AND before.from_id NOT IN (SELECT id FROM behind)
    UNION
    SELECT next.id FROM held h
    CROSS JOIN LATERAL (
        SELECT e.to_id AS id FROM opsjobs.edges e JOIN opsjobs.jobs j ON j.id = e.to_id
        WHERE e.from_id = h.id AND e.on_failure = 'cancel' AND j.ended_by = 'dependency' OFFSET 0) AS next
    WHERE NOT next.id = ANY (%(ids)s::bigint[])
)
SELECT id FROM behind
WHERE id NOT IN (SELECT id FROM held) AND NOT id = ANY (%(ids)s::bigint[])
ORDER BY id
