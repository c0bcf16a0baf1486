-- Lists the deliveries that workers reported as reserved in their last heartbeat, each with its job as it is
-- now. Returns worker_id, job_id, task, queue, state, attempt, since, outcome, is_cancel_wanted. A heartbeat
-- names a delivery "<id>-<dispatch_no>"; `outcome` is the outcome of that attempt, NULL while it runs. Locks
-- nothing.
-- Run by workers/queries.py for the Workers page. Indexes: workers_pkey, jobs_pkey, attempts_pkey.
SELECT worker.id AS worker_id, job.id AS job_id, job.task, job.queue, job.state, attempt.attempt,
       attempt.started_at AS since, attempt.outcome, job.cancel_requested_at IS NOT NULL AS is_cancel_wanted
FROM opsjobs.workers AS worker
CROSS JOIN LATERAL unnest(worker.reserved) AS named (delivery)
CROSS JOIN LATERAL regexp_match(named.delivery, '^([0-9]{1,18})-([0-9]{1,18})$') AS parts (part)
JOIN opsjobs.attempts AS attempt ON attempt.job_id = part[1]::bigint AND attempt.dispatch_no = part[2]::bigint
JOIN opsjobs.jobs AS job ON job.id = attempt.job_id
WHERE worker.id = ANY (%(worker_ids)s::bigint[])
ORDER BY worker.id, attempt.started_at
LIMIT %(limit)s
