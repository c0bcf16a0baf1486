-- Counts the failed jobs without a decision among the last %(most)s that failed, and says how many were read.
-- Locks nothing.
-- Rows: both.
-- Run inside read_single_facts.sql. Index: jobs_to_retain.
SELECT count(*) FILTER (WHERE ended_by <> 'discarded') AS failed, count(*) AS examined
FROM (
    SELECT ended_by FROM opsjobs.jobs WHERE state = 'failed' AND ended_at IS NOT NULL
    ORDER BY state, ended_at DESC LIMIT %(most)s
) AS newest
