-- Counts anew how many edges keep steps waiting: reopened steps, and the steps behind them. Only steps that
-- were not released yet wait for anything. An end that was not passed on to them yet keeps them
-- waiting. The caller holds the run's lock.
-- Run by actions. Indexes: steps_pkey, edges_pkey, edges_by_target.
UPDATE opsjobs.steps s SET pending = (
    SELECT count(*) FROM opsjobs.edges e JOIN opsjobs.steps f ON f.job_id = e.from_id
    WHERE e.to_id = s.job_id
      AND (f.settled IS NULL OR f.passed_to < e.to_id
        OR (f.settled <> 'finished' AND e.on_failure = 'cancel')))
WHERE s.settled IS NULL AND s.released_at IS NULL AND s.job_id IN (
    SELECT unnest(%(ids)s::bigint[])
    UNION
    SELECT to_id FROM opsjobs.edges WHERE from_id = ANY (%(ids)s::bigint[]))
