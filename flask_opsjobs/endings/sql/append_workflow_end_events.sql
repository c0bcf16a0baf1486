-- Appends one end event for each run of which a statement ended steps. `advance` deletes it when it has
-- passed the ends on. Locks nothing and updates nothing: many processes end steps of one run at once.
-- Part of each statement that ends jobs: `moved` are the jobs that it moved.
INSERT INTO opsjobs.workflow_end_events (workflow_id, job_ids)
SELECT workflow_id, array_agg(id) FROM moved
WHERE workflow_id IS NOT NULL AND state IN ('finished', 'failed', 'canceled')
GROUP BY workflow_id
