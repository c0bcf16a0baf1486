-- Counts how many due jobs wait for each bucket of a limiter: limiter, partition, queue, number, weight of all, due
-- since when. Only the oldest %(most)s due jobs are looked at, as sample_live_jobs.sql does, and the %(buckets)s widest
-- returned; `total` is how many limited ones were seen. Locks nothing.
-- Run by overview/attention_queries.py. Index: jobs_by_state.
SELECT limiter, partition, queue, count(*) AS number, sum(weight)::bigint AS weight, min(due_at) AS since,
    (sum(count(*)) OVER ())::bigint AS total
FROM (
    SELECT limiter, partition, queue, weight, due_at FROM opsjobs.jobs
    WHERE (state, id) >= ('available', 0) AND state <= 'available'
    ORDER BY state, id LIMIT %(most)s
) AS sampled
WHERE limiter IS NOT NULL
GROUP BY limiter, partition, queue ORDER BY number DESC, limiter, partition, queue LIMIT %(buckets)s
