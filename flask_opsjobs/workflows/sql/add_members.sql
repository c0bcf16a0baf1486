-- Lets the steps behind a map wait for each of its members too, counts the members, and notes that the map
-- was expanded. The caller holds the run's lock, and has written the members.
-- Run by the job of a map. Indexes: edges_pkey, steps_of_map, steps_pkey, workflows_pkey.
WITH behind AS MATERIALIZED (
    SELECT to_id, on_failure FROM opsjobs.edges WHERE from_id = %(id)s
), joined AS (
    INSERT INTO opsjobs.edges (from_id, to_id, on_failure)
    SELECT unnest(%(members)s::bigint[]), to_id, on_failure FROM behind
), waiting AS (
    UPDATE opsjobs.steps s SET pending = s.pending + cardinality(%(members)s::bigint[])
    FROM behind b WHERE s.job_id = b.to_id AND s.settled IS NULL AND s.released_at IS NULL
), expanded AS (
    UPDATE opsjobs.steps SET expanded_at = %(now)s WHERE job_id = %(id)s
)
UPDATE opsjobs.workflows SET steps = steps + cardinality(%(members)s::bigint[]) WHERE id = %(run)s
