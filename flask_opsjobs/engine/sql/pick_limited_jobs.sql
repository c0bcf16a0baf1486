-- Locks the first due jobs of one limited lane, at most %(number)s, and returns them in order; none of a
-- paused queue or task. Skips jobs that are heavier than their limiter now allows, because they can never
-- start. Makes the commit synchronous, as lock_job_to_claim.sql does. The lane is a range, as in
-- take_jobs.sql.
-- SKIP LOCKED: another worker, a dispatcher or an operator has locked that job.
-- Rows: opsjobs, by origin.
-- Run by a worker's taker when a place of the limiter is free, before it locks the bucket. Indexes: jobs_due,
-- limiters_pkey, queues_pkey.
SELECT j.id, j.dispatch_no, j.weight, coalesce(j.deadline_at <= clock_timestamp(), false) AS is_overdue,
    set_config('synchronous_commit', 'on', true)
FROM opsjobs.jobs j
WHERE j.lane >= %(lane)s AND j.lane <= %(lane)s AND j.state = 'available' AND j.origin = 'opsjobs'
    AND j.weight <= coalesce(
        (SELECT least(l.burst, l.concurrency) FROM opsjobs.limiters l WHERE l.name = %(limiter)s), j.weight)
    AND NOT EXISTS (SELECT FROM opsjobs.queues q WHERE q.name = %(queue)s AND q.is_paused)
    AND j.task NOT IN (SELECT p.task FROM opsjobs.task_pauses p)
ORDER BY j.lane, j.priority, j.due_at, j.id
LIMIT %(number)s FOR UPDATE OF j SKIP LOCKED
