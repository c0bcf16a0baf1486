-- Tells whether a plain RQ worker lives, or an adopted job has not ended: then something waits for Redis.
-- Rows: rq.
-- Run by the loop recall while a Redis does not answer. Indexes: workers_alive, jobs_open_of_rq.
SELECT EXISTS (SELECT FROM opsjobs.workers WHERE ended_at IS NULL AND kind = 'plain')
    OR EXISTS (SELECT FROM opsjobs.jobs WHERE origin = 'rq' AND ended_at IS NULL)
