-- Finds when the next scheduled or retryable job becomes due; NULL when there is none. Locks nothing: staging
-- checks the time again.
-- Run by `perform_due`, when a host's test lets time pass. Index: jobs_to_stage.
SELECT min(due_at) FROM opsjobs.jobs
WHERE state IN ('scheduled', 'retryable') AND origin = 'opsjobs'
