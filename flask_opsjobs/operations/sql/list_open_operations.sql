-- Lists the operations that run or are paused. Locks nothing.
-- Run by the loop operate. Index: operations_open.
SELECT id FROM opsjobs.operations WHERE state IN ('running', 'paused') ORDER BY id LIMIT %(limit)s
