-- Lists the steps directly before each of these steps that have not ended, at most %(most)s of each: those
-- first whose jobs were deleted, since they never end. Locks nothing.
-- Rows: opsjobs, by their runs.
-- Run by explanations. Indexes: edges_by_target, steps_pkey, jobs_pkey.
SELECT step.id, before.name, before.is_removed
FROM unnest(%(ids)s::bigint[]) AS step(id)
CROSS JOIN LATERAL (
    SELECT p.name, j.id IS NULL AS is_removed, p.job_id
    FROM opsjobs.edges e JOIN opsjobs.steps p ON p.job_id = e.from_id AND p.settled IS NULL
    LEFT JOIN opsjobs.jobs j ON j.id = e.from_id
    WHERE e.to_id = step.id AND j.ended_at IS NULL
    ORDER BY j.id IS NOT NULL, p.job_id LIMIT %(most)s) AS before
ORDER BY step.id, NOT before.is_removed, before.job_id
