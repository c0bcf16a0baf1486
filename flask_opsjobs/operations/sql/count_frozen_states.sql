-- Counts the frozen jobs of an operation by origin and state. Locks nothing.
-- Run by operations, when they have been frozen. Index: operation_rows_pkey.
SELECT origin, state, count(*) FROM opsjobs.operation_rows WHERE operation_id = %(id)s
GROUP BY origin, state ORDER BY count(*) DESC, origin, state
