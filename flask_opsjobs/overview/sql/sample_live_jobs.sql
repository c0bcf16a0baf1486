-- Counts the jobs of each queue by state, and since when the first of them waits: state, queue, number,
-- since, and how many of them are managed jobs. Reads only the oldest %(most)s jobs of a state, so that a
-- backlog of millions costs no more; when a state has that many, its numbers are lower bounds. `since` is
-- when a `started` job started, when a `deferred` job was enqueued, and else when the job is due, also for
-- `queued`, since a recall changes the time of dispatch. The state is a range instead of an equality, so that
-- only the index jobs_by_state has the order. Locks nothing.
-- Rows: both.
-- Run by overview/queries.py.
SELECT states.state, of_queue.* FROM unnest(%(states)s::text[]) AS states (state), LATERAL (
    SELECT sampled.queue, count(*) AS number, min(sampled.since) AS since,
        count(*) FILTER (WHERE sampled.origin = 'opsjobs') AS managed
    FROM (
        SELECT job.queue, job.origin,
               CASE states.state WHEN 'started' THEN job.started_at WHEN 'deferred' THEN job.created_at
                                 ELSE job.due_at END AS since
        FROM opsjobs.jobs AS job
        WHERE (job.state, job.id) >= (states.state, 0) AND job.state <= states.state
        ORDER BY job.state, job.id
        LIMIT %(most)s
    ) AS sampled
    GROUP BY sampled.queue
) AS of_queue
