-- Lists the last %(most)s attempts of each of these jobs, the last first. Locks nothing.
-- Run by the page of a workflow. Index: attempts_pkey.
SELECT wanted.id, attempt.* FROM unnest(%(ids)s::bigint[]) AS wanted (id) CROSS JOIN LATERAL (
    SELECT started_at, ended_at, outcome FROM opsjobs.attempts a
    WHERE a.job_id = wanted.id ORDER BY a.job_id, a.dispatch_no DESC LIMIT %(most)s
) AS attempt
