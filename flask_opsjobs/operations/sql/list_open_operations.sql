-- Lists the operations that run or are paused, those behind the id %(after)s. Locks nothing.
-- Run by the loop operate. Index: operations_open.
SELECT id FROM opsjobs.operations WHERE state IN ('running', 'paused') AND id > %(after)s
ORDER BY id LIMIT %(limit)s
