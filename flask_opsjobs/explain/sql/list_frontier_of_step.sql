-- Lists unfinished steps that a step waits for, over any number of steps, and that wait for no other step,
-- with what decides of their jobs. LATERAL and OFFSET 0 let the limit end the search early. Locks nothing.
-- Rows: opsjobs, by their runs.
-- Run by explanations. Indexes: edges_by_target, jobs_pkey, steps_pkey.
WITH RECURSIVE before (id) AS (
    SELECT e.from_id FROM opsjobs.edges e JOIN opsjobs.jobs j ON j.id = e.from_id AND j.ended_at IS NULL
    WHERE e.to_id = %(id)s
    UNION
    SELECT e.from_id FROM before b JOIN opsjobs.edges e ON e.to_id = b.id
    JOIN opsjobs.jobs j ON j.id = e.from_id AND j.ended_at IS NULL
)
SELECT j.*, s.name, NULL::text AS waiting FROM before b
CROSS JOIN LATERAL (
    SELECT WHERE NOT EXISTS (
        SELECT FROM opsjobs.edges e JOIN opsjobs.jobs j ON j.id = e.from_id AND j.ended_at IS NULL
        WHERE e.to_id = b.id) OFFSET 0) AS first
JOIN opsjobs.steps s ON s.job_id = b.id
JOIN {job_evidence.sql} AS j ON j.id = b.id
LIMIT %(most)s
