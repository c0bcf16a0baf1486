-- Selects what decides whether a job can run: the fields of JobEvidence. Other statements choose the jobs.
-- Locks nothing.
-- Rows: both.
-- Run by explanations. Index: jobs_pkey.
SELECT id, origin, state, task, queue, lane, priority, attempt, max_attempts, dispatch_no, created_at, due_at,
    deadline_at, dispatched_at, started_at, worker_id, reserved_by, cancel_requested_at, cancel_requested_by,
    cancel_reason, first_handed_back_at, cron_entry, workflow_id, limiter, partition, weight
FROM opsjobs.jobs
