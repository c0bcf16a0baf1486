-- Counts the failed jobs without a decision, grouped by task, how they ended and the first words of the
-- error: number, when the first of them ended, the id of the last one; and how many there are in all and how
-- many were read. Reads only the last %(most)s failed jobs, and returns the largest %(groups)s groups. Locks
-- nothing.
-- Run by overview/queries.py. Index: jobs_to_retain.
WITH examined AS MATERIALIZED (
    SELECT id, task, ended_by, ended_at, split_part(split_part(left(error, 80), E'\n', 1), ':', 1) AS error
    FROM opsjobs.jobs WHERE state = 'failed' AND ended_at IS NOT NULL
    ORDER BY state, ended_at DESC LIMIT %(most)s
)
SELECT task, ended_by, error, count(*) AS number, min(ended_at) AS since, max(id) AS job_id,
    (sum(count(*)) OVER ())::bigint AS total, (SELECT count(*) FROM examined) AS examined
FROM examined WHERE ended_by <> 'discarded'
GROUP BY task, ended_by, error ORDER BY number DESC, since LIMIT %(groups)s
