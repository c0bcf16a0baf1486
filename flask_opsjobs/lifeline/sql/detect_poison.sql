-- Finds jobs that have not ended and killed the process that ran them twice within a day, among the 2,000
-- newest deaths. A death counts only when no attempt of another job died on the same worker within two
-- seconds: a reboot kills many. Time limits, stops and deploys are no deaths of this kind.
-- Rows: opsjobs, by origin.
-- Run by the loop detect. Indexes: attempts_by_death, jobs_pkey.
WITH deaths AS MATERIALIZED (
    SELECT job_id, worker, ended_at, cause_of_death FROM opsjobs.attempts
    WHERE death IN ('out_of_memory', 'signal', 'exited', 'vanished', 'unknown') AND death IS NOT NULL
        AND ended_at > %(now)s::timestamptz - interval '1 day'
    ORDER BY ended_at DESC LIMIT 2000
)
SELECT j.id, j.task, j.queue, j.state, count(*) AS number, min(d.ended_at) AS first_at,
    max(d.ended_at) AS last_at, (array_agg(d.cause_of_death ORDER BY d.ended_at DESC))[1] AS cause
FROM deaths d JOIN opsjobs.jobs j ON j.id = d.job_id AND j.ended_at IS NULL AND j.origin = 'opsjobs'
WHERE NOT EXISTS (
    SELECT FROM deaths other
    WHERE other.worker = d.worker AND other.job_id <> d.job_id
        AND other.ended_at BETWEEN d.ended_at - interval '2 s' AND d.ended_at + interval '2 s')
GROUP BY j.id, j.task, j.queue, j.state
HAVING count(*) >= 2
ORDER BY j.id
LIMIT %(limit)s
