-- Appends an end event for each step that a statement ended. `advance` deletes it when it has passed the end
-- on. Locks nothing and updates nothing: many processes end steps of one run at once.
-- Part of each statement that ends jobs: `moved` are the jobs that it moved.
INSERT INTO opsjobs.workflow_end_events (workflow_id, job_id)
SELECT workflow_id, id FROM moved
WHERE workflow_id IS NOT NULL AND state IN ('finished', 'failed', 'canceled')
