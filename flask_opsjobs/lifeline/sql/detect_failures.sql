-- Finds open failures that failed within a day, among the 2,000 that failed last: with %(has_regressed)s
-- those that failed again on a worker with their fix, without it the others of which a job failed in the end.
-- Run by the loop detect. Indexes: failures_by_state or failures_to_retain, deploys_pkey.
SELECT f.id, f.task, f.type, f.raised_in, f.number, f.jobs, f.first_at, f.sample_job_id,
    f.regressed_at, d.version AS regressed_in
FROM (
    SELECT * FROM opsjobs.failures
    WHERE state = 'open' AND last_at > %(now)s::timestamptz - interval '1 day'
    ORDER BY state, last_at DESC LIMIT 2000
) AS f
LEFT JOIN opsjobs.deploys d ON d.id = f.regressed_in
WHERE CASE WHEN %(has_regressed)s::boolean THEN f.regressed_at IS NOT NULL
    ELSE f.regressed_at IS NULL AND f.job_failed_at > %(now)s::timestamptz - interval '1 day' END
ORDER BY f.last_at DESC, f.id
LIMIT %(limit)s
