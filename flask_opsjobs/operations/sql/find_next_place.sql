-- Finds the Redis and the queue of the job whose turn comes next in an operation, when it is a plain RQ job.
-- Locks nothing: no lock may be held while that Redis is asked.
-- Rows: rq.
-- Run by the loop operate, before a turn. Indexes: operations_pkey, operation_rows_pkey,
-- jobs_adopted.
SELECT j.rq_place, j.queue
FROM opsjobs.operations o
JOIN opsjobs.operation_rows r ON r.operation_id = o.id AND r.number = 1 + o.done + o.skipped + o.asked
    + o.proven + o.failed_same_error + o.failed_other_error + o.unproven
JOIN opsjobs.jobs j ON j.id = r.job_id AND j.origin = 'rq'
WHERE o.id = %(id)s AND j.rq_place IS NOT NULL
