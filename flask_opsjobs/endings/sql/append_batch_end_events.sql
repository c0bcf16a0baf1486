-- Appends how many members of each batch a statement ended, by kind of end. Folding adds the rows up and
-- deletes them. Locks nothing and updates nothing: many processes end members of one batch at once.
-- Part of each statement that ends jobs: `moved` are the jobs that it moved.
INSERT INTO opsjobs.batch_end_events (batch_id, kind, ended_by, number)
SELECT batch_id, state, ended_by, count(*) FROM moved
WHERE batch_id IS NOT NULL AND state IN ('finished', 'failed', 'canceled')
GROUP BY batch_id, state, ended_by
