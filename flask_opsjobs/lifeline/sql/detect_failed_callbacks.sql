-- Finds jobs that should have told the application of the end of a run or a batch, and that failed within a
-- day: among the 2,000 jobs that failed last.
-- Rows: opsjobs, by origin.
-- Run by the loop detect. Indexes: jobs_to_retain, callbacks_by_job.
SELECT c.of, c.of_id, c.event, failed.id, failed.task, failed.queue, failed.ended_at
FROM (
    SELECT id, task, queue, ended_at, origin FROM opsjobs.jobs
    WHERE state = 'failed' AND ended_at IS NOT NULL AND ended_at > %(now)s::timestamptz - interval '1 day'
    ORDER BY state, ended_at DESC LIMIT 2000
) AS failed
JOIN opsjobs.callbacks c ON c.job_id = failed.id
WHERE failed.origin = 'opsjobs'
ORDER BY failed.id
LIMIT %(limit)s
