-- Counts the due jobs of each bucket of a limiter, without those of paused tasks: limiter, partition, queue,
-- number, total weight, and since when the first of them is due. Reads only the oldest %(most)s due jobs, as
-- sample_live_jobs.sql does, and returns the %(buckets)s largest groups; `total` is the number of limited
-- jobs among these, `examined` that of all that were read. Reads none when no due job has a limiter. Without
-- such a group, returns one row with a NULL limiter, so that `examined` is known. Locks nothing.
-- Rows: opsjobs, since no other is available.
-- Run by overview/queries.py. Indexes: jobs_limited, jobs_by_state.
WITH sampled AS MATERIALIZED (
    SELECT limiter, partition, queue, task, weight, due_at FROM opsjobs.jobs
    WHERE (state, id) >= ('available', 0) AND state <= 'available'
        AND EXISTS (SELECT FROM opsjobs.jobs WHERE limiter IS NOT NULL AND state = 'available')
    ORDER BY state, id LIMIT %(most)s
), grouped AS (
    SELECT limiter, partition, queue, count(*) AS number, sum(weight)::bigint AS weight, min(due_at) AS since,
        (sum(count(*)) OVER ())::bigint AS total
    FROM sampled
    WHERE limiter IS NOT NULL AND task NOT IN (SELECT p.task FROM opsjobs.task_pauses p)
    GROUP BY limiter, partition, queue ORDER BY number DESC, limiter, partition, queue LIMIT %(buckets)s
)
SELECT grouped.*, all_of_them.examined
FROM (SELECT count(*) AS examined FROM sampled) AS all_of_them LEFT JOIN grouped ON true
