-- Writes what became of rows whose turn has come, all between the numbers %(low)s and %(high)s. The caller
-- has locked the operation. Without these bounds the planner reads all rows of an operation that was frozen
-- a moment ago, for each chunk, until the table is analyzed.
-- Run by the loop operate, in the transaction that changes the jobs. Index: operation_rows_pkey.
UPDATE opsjobs.operation_rows r
SET result = made.result, code = made.code, says = made.says, new_job_id = made.new_job_id, at = %(now)s
FROM unnest(%(numbers)s::int[], %(results)s::text[], %(codes)s::text[], %(sentences)s::text[],
    %(new_job_ids)s::bigint[]) AS made (number, result, code, says, new_job_id)
WHERE r.operation_id = %(id)s AND r.number BETWEEN %(low)s AND %(high)s AND r.number = made.number
    AND r.result = 'pending'
