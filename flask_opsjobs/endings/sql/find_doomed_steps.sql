-- Finds steps that can no longer run, because a step before them did not finish and an edge between says
-- `cancel`, over any number of steps; the nearest first. Returns each with the step that caused it, and
-- whether no step lies between.
-- Stops at settled steps: what is behind those was canceled when they settled. LATERAL and OFFSET 0 let the
-- limit end the search early, and read each edge by its key: Postgres expects ten times as many steps at each
-- depth as there were at first, and would read all edges at each.
-- The caller holds the run's lock.
-- Rows: opsjobs, by their runs.
-- Run by `advance`. Indexes: edges_pkey, steps_pkey, jobs_pkey or jobs_by_state.
WITH RECURSIVE behind (id, cause, is_next) AS (
    SELECT next.id, u.cause, true FROM unnest(%(unfinished)s::bigint[], %(causes)s::bigint[]) AS u(id, cause)
    CROSS JOIN LATERAL (
        SELECT e.to_id AS id FROM opsjobs.edges e JOIN opsjobs.steps s ON s.job_id = e.to_id
        WHERE e.from_id = u.id AND e.on_failure = 'cancel' AND s.settled IS NULL OFFSET 0) AS next
    UNION
    SELECT next.id, b.cause, false FROM behind b
    CROSS JOIN LATERAL (
        SELECT e.to_id AS id FROM opsjobs.edges e JOIN opsjobs.steps s ON s.job_id = e.to_id
        WHERE e.from_id = b.id AND e.on_failure = 'cancel' AND s.settled IS NULL OFFSET 0) AS next
)
SELECT b.id, b.cause, b.is_next FROM behind b
CROSS JOIN LATERAL (
    SELECT FROM opsjobs.jobs j WHERE j.id = b.id AND j.state = 'deferred' OFFSET 0) AS waiting
LIMIT %(limit)s
