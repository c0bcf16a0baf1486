-- Freezes, for an operation that undoes another, the jobs that the other one changed and that may be changed
-- back: those that are %(states)s now. Of a retry these are the rows that are not proven yet. Locks nothing.
-- Rows: both.
-- Run by operations, in the transaction that begins the operation. Indexes: operation_rows_done, jobs_pkey,
-- attempts_pkey.
INSERT INTO opsjobs.operation_rows (operation_id, number, job_id, queue, origin, state, dispatch_no, attempt,
    failure_key)
SELECT %(id)s, row_number() OVER (ORDER BY r.number), j.id, j.queue, j.origin, j.state, j.dispatch_no,
    j.attempt, a.failure_key
FROM opsjobs.operation_rows r
JOIN opsjobs.jobs j ON j.id = r.job_id AND j.state = ANY (%(states)s::text[])
LEFT JOIN opsjobs.attempts a ON a.job_id = j.id AND a.dispatch_no = j.dispatch_no
WHERE r.operation_id = %(undo_of)s AND r.result = 'done'
