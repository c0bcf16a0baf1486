-- Finds the steps because of which each of these steps was canceled, over any number of steps: they failed,
-- or were canceled themselves. Returns the id of a canceled step and the names of at most five.
-- LATERAL and OFFSET 0 read each edge by its key, as in find_doomed_steps. Locks nothing.
-- Rows: opsjobs, by their runs.
-- Run by actions. Indexes: edges_by_target, jobs_pkey, steps_pkey.
WITH RECURSIVE before (of, id, ended_by) AS (
    SELECT j.id, j.id, j.ended_by FROM opsjobs.jobs j
    WHERE j.id = ANY (%(ids)s::bigint[]) AND j.ended_by = 'dependency'
    UNION
    SELECT b.of, source.id, source.ended_by FROM before b
    CROSS JOIN LATERAL (
        SELECT j.id, j.ended_by FROM opsjobs.edges e JOIN opsjobs.jobs j ON j.id = e.from_id
        WHERE e.to_id = b.id AND e.on_failure = 'cancel' AND j.state IN ('failed', 'canceled')
        OFFSET 0) AS source
    WHERE b.ended_by = 'dependency'
)
SELECT b.of, (array_agg(s.name ORDER BY s.job_id))[:5] AS names
FROM before b JOIN opsjobs.steps s ON s.job_id = b.id
WHERE b.ended_by <> 'dependency'
GROUP BY b.of ORDER BY b.of
