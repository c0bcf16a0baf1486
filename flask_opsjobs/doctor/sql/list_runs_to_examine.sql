-- Lists the newest 300 runs, and of those that have not ended the oldest 300.
-- Run by the doctor, read-only. Indexes: workflows_pkey, workflows_by_state.
SELECT id FROM (SELECT id FROM opsjobs.workflows ORDER BY id DESC LIMIT 300) AS newest
UNION
SELECT id FROM (
    SELECT id FROM opsjobs.workflows WHERE state = 'running' ORDER BY state, id LIMIT 300) AS oldest
