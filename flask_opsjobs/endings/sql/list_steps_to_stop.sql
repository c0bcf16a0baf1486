-- Lists steps of a canceled run that have not ended and whose workers were not asked to stop them.
-- They are sorted after the limit: a sorted limit would tempt Postgres to read all jobs in id order.
-- The caller holds the run's lock.
-- Rows: opsjobs, by their runs.
-- Run by `advance`. Index: jobs_of_run.
WITH open AS MATERIALIZED (
    SELECT id, state FROM opsjobs.jobs
    WHERE workflow_id = %(id)s
      AND state IN ('deferred', 'scheduled', 'available', 'queued', 'started', 'retryable')
      AND (cancel_requested_at IS NULL OR state <> 'started' AND reserved_by IS NULL)
    LIMIT %(limit)s
)
SELECT id, state FROM open ORDER BY id
