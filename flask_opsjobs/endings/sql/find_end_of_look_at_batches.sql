-- Finds the last of the next %(most)s closed batches after %(after)s that have not ended; no row when there
-- are fewer. Locks nothing.
-- Run by the fold loop. Index: batches_by_state.
SELECT id FROM opsjobs.batches WHERE state = 'running' AND id > %(after)s
ORDER BY id LIMIT 1 OFFSET %(most)s - 1
