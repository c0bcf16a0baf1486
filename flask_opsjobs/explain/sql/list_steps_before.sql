-- Lists the steps directly before a step that have not ended, at most %(most)s: those first whose jobs were
-- deleted, since they never end. Locks nothing.
-- Rows: opsjobs, by their runs.
-- Run by explanations. Indexes: edges_by_target, steps_pkey, jobs_pkey.
SELECT p.name, j.id IS NULL AS is_removed
FROM opsjobs.edges e JOIN opsjobs.steps p ON p.job_id = e.from_id AND p.settled IS NULL
LEFT JOIN opsjobs.jobs j ON j.id = e.from_id
WHERE e.to_id = %(id)s AND j.ended_at IS NULL
ORDER BY j.id IS NOT NULL, p.job_id LIMIT %(most)s
