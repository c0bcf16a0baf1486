-- Lists the jobs of some rows of an operation, by number. Locks nothing.
-- Run by operations, for the samples of the preview. Index: operation_rows_pkey.
SELECT job_id FROM opsjobs.operation_rows
WHERE operation_id = %(id)s AND number = ANY (%(numbers)s::int[]) ORDER BY number
