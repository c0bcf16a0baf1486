-- Counts the rows of an operation above %(low)s up to %(high)s by result, and hashes them: SHA-256 over a
-- line "number job result code" for each, in the order of their numbers. Locks nothing.
-- Run by the loop operate for the audit, and by whoever compares. Index: operation_rows_pkey.
SELECT encode(sha256(convert_to(string_agg(
        concat_ws(' ', number, job_id, result, code), E'\n' ORDER BY number), 'UTF8')), 'hex') AS hash,
    count(*) FILTER (WHERE result = 'done') AS done,
    count(*) FILTER (WHERE result = 'skipped') AS skipped,
    count(*) FILTER (WHERE result = 'asked') AS asked,
    count(*) FILTER (WHERE result = 'proven') AS proven,
    count(*) FILTER (WHERE result = 'failed_same_error') AS failed_same_error,
    count(*) FILTER (WHERE result = 'failed_other_error') AS failed_other_error,
    count(*) FILTER (WHERE result = 'unproven') AS unproven
FROM opsjobs.operation_rows
WHERE operation_id = %(id)s AND number > %(low)s AND number <= %(high)s
