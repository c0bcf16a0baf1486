-- Finds tasks that workers hand back because they do not have them, for half a minute or longer: among 5,000
-- jobs that are due again within 20 s, which is how long such a job waits at most, and the 2,000 that ended
-- last because of it within ten minutes.
-- Rows: opsjobs, by origin.
-- Run by the loop detect. Indexes: jobs_to_stage, jobs_to_retain.
SELECT task, min(queue) AS queue, count(*) AS number, min(since) AS since,
    (array_agg(id ORDER BY id))[:101] AS jobs
FROM (
    SELECT id, task, queue, first_handed_back_at AS since FROM (
        SELECT id, task, queue, first_handed_back_at, error FROM opsjobs.jobs
        WHERE state IN ('scheduled', 'retryable') AND origin = 'opsjobs'
            AND due_at <= %(now)s::timestamptz + interval '20 s'
        ORDER BY due_at LIMIT 5000
    ) AS waiting
    WHERE first_handed_back_at <= %(now)s::timestamptz - interval '30 s' AND error LIKE 'no task %%'
    UNION ALL
    SELECT id, task, queue, first_handed_back_at FROM (
        SELECT id, task, queue, first_handed_back_at, ended_by, ended_at FROM opsjobs.jobs
        WHERE state = 'failed' AND ended_at IS NOT NULL
            AND ended_at > %(now)s::timestamptz - interval '10 min'
        ORDER BY state, ended_at DESC LIMIT 2000
    ) AS failed
    WHERE ended_by = 'unknown_task'
) AS refused
GROUP BY task
ORDER BY task
LIMIT %(limit)s
