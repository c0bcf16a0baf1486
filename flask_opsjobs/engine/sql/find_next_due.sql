-- Finds when time next changes something: a scheduled or retryable job becomes due, or the deadline of a
-- waiting job, of an open wait or of a run passes. NULL when there is no such time. Locks nothing: whoever
-- acts on it checks the time again.
-- Rows: opsjobs, by origin.
-- Run by `perform_due`, when a host's test lets time pass. Indexes: jobs_to_stage, jobs_deadlines,
-- workflows_deadlines.
SELECT least(
    (SELECT min(due_at) FROM opsjobs.jobs
        WHERE state IN ('scheduled', 'retryable') AND origin = 'opsjobs'),
    (SELECT min(deadline_at) FROM opsjobs.jobs
        WHERE state IN ('deferred', 'scheduled', 'available', 'queued', 'retryable')
          AND deadline_at IS NOT NULL AND origin = 'opsjobs'),
    (SELECT min(deadline_at) FROM opsjobs.workflows
        WHERE deadline_at IS NOT NULL AND ended_at IS NULL AND state = 'running'))
