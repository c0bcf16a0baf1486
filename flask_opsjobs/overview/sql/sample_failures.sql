-- Counts the failures that nobody has decided about, those with the same error together: task, how it ended, the
-- error's first words, number, when the first of them ended, the last one's id; and how many there are in all, and were
-- looked at. Only the last %(most)s that failed are looked at, and the widest %(groups)s returned. Locks nothing.
-- Run by overview/attention_queries.py. Index: jobs_to_retain.
WITH looked AS MATERIALIZED (
    SELECT id, task, ended_by, ended_at, left(split_part(split_part(error, E'\n', 1), ':', 1), 80) AS error
    FROM opsjobs.jobs WHERE state = 'failed' AND ended_at IS NOT NULL
    ORDER BY state, ended_at DESC LIMIT %(most)s
)
SELECT task, ended_by, error, count(*) AS number, min(ended_at) AS since, max(id) AS job_id,
    (sum(count(*)) OVER ())::bigint AS total, (SELECT count(*) FROM looked) AS looked
FROM looked WHERE ended_by <> 'discarded'
GROUP BY task, ended_by, error ORDER BY number DESC, since LIMIT %(groups)s
