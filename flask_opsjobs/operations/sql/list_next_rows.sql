-- Lists the next rows of an operation, above %(low)s up to %(high)s, with the facts that were frozen.
-- Run by the loop operate, which has locked the operation. Index: operation_rows_pkey.
SELECT number, job_id, queue, origin, state, dispatch_no, attempt FROM opsjobs.operation_rows
WHERE operation_id = %(id)s AND number > %(low)s AND number <= %(high)s
ORDER BY number LIMIT %(limit)s
