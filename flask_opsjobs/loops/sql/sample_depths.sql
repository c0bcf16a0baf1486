-- Records how many live jobs each queue has in %(minute)s, also for queues of %(queues)s without any. Does
-- nothing when the minute is recorded already. Reads at most %(most)s jobs of a state, oldest first; when a
-- state has that many, all numbers of the minute are lower bounds. The state is a range and not an equality,
-- so that only the index jobs_by_state offers the order. Locks nothing.
-- Rows: both.
-- Run by the roll_up loop once a minute. Indexes: jobs_by_state, depths_pkey.
WITH counted AS MATERIALIZED (
    SELECT states.state, job.queue, count(*) AS number
    FROM unnest(%(states)s::text[]) AS states (state), LATERAL (
        SELECT queue FROM opsjobs.jobs
        WHERE (jobs.state, id) >= (states.state, 0) AND jobs.state <= states.state
        ORDER BY jobs.state, id LIMIT %(most)s
    ) AS job
    GROUP BY 1, 2
), names AS (
    SELECT unnest(%(queues)s::text[]) AS queue UNION SELECT queue FROM counted
)
INSERT INTO opsjobs.depths (minute, queue, waiting, due, started, is_capped)
SELECT %(minute)s, names.queue,
    coalesce(sum(number) FILTER (WHERE state IN ('deferred', 'scheduled', 'retryable')), 0),
    coalesce(sum(number) FILTER (WHERE state IN ('available', 'queued')), 0),
    coalesce(sum(number) FILTER (WHERE state = 'started'), 0),
    EXISTS (SELECT FROM counted GROUP BY state HAVING sum(number) >= %(most)s)
FROM names LEFT JOIN counted USING (queue)
GROUP BY names.queue
ON CONFLICT (minute, queue) DO NOTHING
