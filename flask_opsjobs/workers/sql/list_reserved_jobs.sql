-- Lists the attempts that workers reported in their last heartbeat, run now, or lost within a minute after
-- they were declared missing, each with its job as it is now. Returns worker_id, job_id, task, queue, state,
-- attempt, since, outcome, pid, is_cancel_wanted. A heartbeat names a delivery "<id>-<dispatch_no>";
-- `outcome` is the outcome of that attempt, NULL while it runs. Locks nothing.
-- Rows: both.
-- Run by workers/queries.py for the Workers page. Indexes: workers_pkey, jobs_started, jobs_pkey,
-- attempts_pkey, attempts_by_death.
SELECT worker.id AS worker_id, job.id AS job_id, job.task, job.queue, job.state, attempt.attempt,
       attempt.started_at AS since, attempt.outcome, attempt.pid,
       job.cancel_requested_at IS NOT NULL AS is_cancel_wanted
FROM opsjobs.workers AS worker
CROSS JOIN LATERAL (
    SELECT part[1]::bigint AS job_id, part[2]::bigint AS dispatch_no
    FROM unnest(worker.reserved) AS named (delivery)
    CROSS JOIN LATERAL regexp_match(named.delivery, '^([0-9]{1,18})-([0-9]{1,18})$') AS parts (part)
    UNION
    SELECT id, dispatch_no FROM opsjobs.jobs WHERE worker_id = worker.id AND state = 'started'
    UNION
    -- What it began after its last heartbeat.
    SELECT lost.job_id, lost.dispatch_no FROM opsjobs.attempts AS lost
    WHERE lost.death = 'vanished' AND lost.worker_id = worker.id
      AND lost.ended_at BETWEEN worker.ended_at AND worker.ended_at + interval '1 minute'
) AS delivery
JOIN opsjobs.attempts AS attempt USING (job_id, dispatch_no)
JOIN opsjobs.jobs AS job ON job.id = attempt.job_id
WHERE worker.id = ANY (%(worker_ids)s::bigint[])
ORDER BY worker.id, attempt.started_at
LIMIT %(limit)s
