-- Finds when the next scheduled or retryable job becomes due; NULL when there is none.
-- No lock: whoever stages it looks again.
-- Run by a host's tests, which let time pass. Index: jobs_to_stage.
SELECT min(due_at) FROM opsjobs.jobs
WHERE state IN ('scheduled', 'retryable') AND origin = 'opsjobs'
