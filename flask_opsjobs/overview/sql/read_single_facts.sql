-- Reads what the overview says once, in one row: the failed jobs without a decision and how many were read,
-- as count_failed_jobs.sql; the started jobs whose worker has ended; when the next scheduled or retryable job
-- is due; when the last incident ended; and how many have ended by themselves since %(since)s, at most
-- %(most_cleared)s. Locks nothing.
-- Rows: both.
-- Run by overview/queries.py. Indexes: jobs_to_retain, jobs_started, jobs_queued, workers_pkey,
-- jobs_to_stage, incidents_to_retain.
SELECT failed.failed, failed.examined,
    (SELECT coalesce(sum(jobs), 0)::bigint FROM {list_abandoned_jobs.sql} AS lost) AS abandoned,
    (SELECT due_at FROM opsjobs.jobs WHERE state IN ('scheduled', 'retryable') AND origin = 'opsjobs'
     ORDER BY due_at LIMIT 1) AS next_due,
    (SELECT max(resolved_at) FROM opsjobs.incidents) AS incident_ended_at,
    (SELECT count(*) FROM (
        SELECT FROM opsjobs.incidents
        WHERE resolved_at >= %(since)s AND resolved_by = 'cleared' LIMIT %(most_cleared)s
    ) AS ended) AS cleared
FROM {count_failed_jobs.sql} AS failed
