-- The deliveries that executors said they held with their last beat, each with its job as it is now.
-- Returns executor_id, job_id, task, queue, state, attempt, since, outcome, is_cancel_wanted. A beat names a delivery
-- "<id>-<dispatch_no>"; `outcome` is how that very attempt ended, NULL while it runs. Locks nothing.
-- Run by lifeline/queries.py for the Workers page. Indexes: executors_pkey, jobs_pkey, attempts_pkey.
SELECT executor.id AS executor_id, job.id AS job_id, job.task, job.queue, job.state, attempt.attempt,
       attempt.started_at AS since, attempt.outcome, job.cancel_requested_at IS NOT NULL AS is_cancel_wanted
FROM opsjobs.executors AS executor
CROSS JOIN LATERAL unnest(executor.holding) AS held (delivery)
CROSS JOIN LATERAL regexp_match(held.delivery, '^([0-9]{1,18})-([0-9]{1,18})$') AS parts (part)
JOIN opsjobs.attempts AS attempt ON attempt.job_id = part[1]::bigint AND attempt.dispatch_no = part[2]::bigint
JOIN opsjobs.jobs AS job ON job.id = attempt.job_id
WHERE executor.id = ANY (%(executor_ids)s::bigint[])
ORDER BY executor.id, attempt.started_at
LIMIT %(limit)s
