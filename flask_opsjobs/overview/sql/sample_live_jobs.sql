-- Counts how many jobs of each state a queue has, and since when the first of them: state, queue, number, since.
-- Only the oldest %(most)s of a state are looked at, so that a backlog of millions costs no more; when a state has
-- that many, its numbers are lower bounds. `since` is what waiting counts from: when a job started, for `deferred` when
-- it was enqueued, else when it is due. A `queued` job too waits since it is due: a recall moves when it was handed
-- out. The state is a range and not an equality, so that only the index jobs_by_state offers the order. Locks nothing.
-- Run by overview/queries.py.
SELECT states.state, sampled.queue, count(*) AS number, min(sampled.since) AS since
FROM unnest(%(states)s::text[]) AS states (state), LATERAL (
    SELECT job.queue,
           CASE job.state WHEN 'started' THEN job.started_at WHEN 'deferred' THEN job.created_at
                          ELSE job.due_at END AS since
    FROM opsjobs.jobs AS job
    WHERE (job.state, job.id) >= (states.state, 0) AND job.state <= states.state
    ORDER BY job.state, job.id
    LIMIT %(most)s
) AS sampled
GROUP BY states.state, sampled.queue
