-- Counts what ended from %(start)s until before %(end)s: minute, queue, state, bucket of the wait and of the run,
-- number. A wait is from due to started, a run from started to ended, of jobs whose function ran to its end or failed
-- for good; NULL where there was none. Buckets by %(bounds)s, in seconds. A job that is tried again meanwhile is not
-- seen. Locks nothing. Run by the roll_up loop, a few minutes at a time. Index: jobs_to_retain.
SELECT date_trunc('minute', job.ended_at) AS minute, job.queue, job.state,
    CASE WHEN has_run THEN width_bucket(extract(epoch FROM job.started_at - job.due_at)::float8, %(bounds)s::float8[]) END
        AS wait,
    CASE WHEN has_run THEN width_bucket(extract(epoch FROM job.ended_at - job.started_at)::float8, %(bounds)s::float8[]) END
        AS run,
    count(*) AS number
FROM unnest(%(states)s::text[]) AS states (state), LATERAL (
    SELECT *, started_at IS NOT NULL AND ended_by IN ('returned', 'exhausted') AS has_run FROM opsjobs.jobs
    WHERE jobs.state = states.state AND ended_at >= %(start)s AND ended_at < %(end)s
) AS job
GROUP BY 1, 2, 3, 4, 5
