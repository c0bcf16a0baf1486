-- Counts the jobs that ended from %(start)s until before %(end)s: minute, queue, state, histogram bucket of
-- the wait time and of the run time, number, task, and the sums of wait and run times in seconds. A wait is
-- from due to started, a run from started to ended. Both are counted for jobs whose function returned or
-- failed for good, and are NULL for other jobs. %(bounds)s are the bounds of the buckets in seconds. A job
-- that was retried meanwhile is not counted. Locks nothing.
-- Rows: both.
-- Run by the roll_up loop, a few minutes at a time. Index: jobs_to_retain.
SELECT date_trunc('minute', job.ended_at) AS minute, job.queue, job.state,
    CASE WHEN has_run
        THEN width_bucket(extract(epoch FROM job.started_at - job.due_at)::float8, %(bounds)s::float8[])
    END
        AS wait,
    CASE WHEN has_run
        THEN width_bucket(extract(epoch FROM job.ended_at - job.started_at)::float8, %(bounds)s::float8[])
    END
        AS run,
    count(*) AS number, job.task,
    coalesce(sum(greatest(extract(epoch FROM job.started_at - job.due_at), 0)) FILTER (WHERE has_run), 0)
        ::float8 AS wait_seconds,
    coalesce(sum(greatest(extract(epoch FROM job.ended_at - job.started_at), 0)) FILTER (WHERE has_run), 0)
        ::float8 AS run_seconds
FROM unnest(%(states)s::text[]) AS states (state), LATERAL (
    SELECT *, started_at IS NOT NULL AND ended_by IN ('returned', 'exhausted') AS has_run FROM opsjobs.jobs
    WHERE jobs.state = states.state AND ended_at >= %(start)s AND ended_at < %(end)s
) AS job
GROUP BY 1, 2, 3, 4, 5, 7
