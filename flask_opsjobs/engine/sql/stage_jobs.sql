-- Moves scheduled and retryable jobs that have become due to `available`, longest due first. Returns their
-- lanes, each with its queue and its number of jobs.
-- SKIP LOCKED: another transaction stages, cancels or expires that job.
-- Rows: opsjobs, by origin.
-- Run by the stage loop. Index: jobs_to_stage.
WITH due AS MATERIALIZED (
    SELECT id FROM opsjobs.jobs
    WHERE state IN ('scheduled', 'retryable') AND due_at <= %(now)s AND origin = 'opsjobs'
    ORDER BY due_at LIMIT %(limit)s FOR UPDATE SKIP LOCKED
), staged AS (
    UPDATE opsjobs.jobs j SET state = 'available' FROM due WHERE j.id = due.id
    RETURNING j.lane, j.queue
)
SELECT lane, queue, count(*) FROM staged GROUP BY lane, queue ORDER BY lane
