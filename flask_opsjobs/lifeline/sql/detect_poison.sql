-- Finds jobs that have not ended and killed the process that ran them twice within a day, among the 2,000
-- newest deaths. A death that nobody saw, as after a reboot, does not count when another job died on the same
-- worker within two seconds; one that the worker saw does not count when two others did. Time limits, stops
-- and deploys are no deaths of this kind.
-- Rows: opsjobs, by origin.
-- Run by the loop detect. Indexes: attempts_by_death, jobs_pkey.
WITH deaths AS MATERIALIZED (
    SELECT job_id, worker, death, ended_at, cause_of_death FROM opsjobs.attempts
    WHERE death IN ('out_of_memory', 'signal', 'exited', 'vanished', 'unknown') AND death IS NOT NULL
        AND ended_at > %(now)s::timestamptz - interval '1 day'
    ORDER BY ended_at DESC LIMIT 2000
), compared AS (
    SELECT job_id, death, ended_at, cause_of_death, array_agg(job_id) OVER (
        PARTITION BY worker ORDER BY ended_at
        RANGE BETWEEN interval '2 s' PRECEDING AND interval '2 s' FOLLOWING) AS died
    FROM deaths
)
SELECT j.id, j.task, j.queue, j.state, count(*) AS number, min(d.ended_at) AS first_at,
    max(d.ended_at) AS last_at, (array_agg(d.cause_of_death ORDER BY d.ended_at DESC))[1] AS cause
FROM compared d JOIN opsjobs.jobs j ON j.id = d.job_id AND j.ended_at IS NULL AND j.origin = 'opsjobs'
WHERE (SELECT count(DISTINCT other) FROM unnest(d.died) other WHERE other <> d.job_id)
    < CASE WHEN d.death IN ('vanished', 'unknown') THEN 1 ELSE 2 END
GROUP BY j.id, j.task, j.queue, j.state
HAVING count(*) >= 2
ORDER BY j.id
LIMIT %(limit)s
