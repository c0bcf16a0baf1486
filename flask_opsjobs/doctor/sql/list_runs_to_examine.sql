-- Lists the newest 300 runs, and of those that have not ended the oldest 300: each time as many as have 3,000
-- steps together, without those of more than 1,000 steps. More would take too long for the doctor.
-- Run by the doctor, read-only. Indexes: workflows_pkey, workflows_by_state.
SELECT id FROM (
    SELECT id, sum(steps) OVER (ORDER BY id DESC) AS so_far
    FROM (SELECT id, steps FROM opsjobs.workflows ORDER BY id DESC LIMIT 300) AS newest WHERE steps <= 1000
) AS newest WHERE so_far <= 3000
UNION
SELECT id FROM (
    SELECT id, sum(steps) OVER (ORDER BY id) AS so_far
    FROM (
        SELECT id, steps FROM opsjobs.workflows WHERE state = 'running' ORDER BY state, id LIMIT 300
    ) AS oldest WHERE steps <= 1000
) AS oldest WHERE so_far <= 3000
