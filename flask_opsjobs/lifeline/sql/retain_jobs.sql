-- Removes the oldest jobs of one final state that ended before %(before)s, at most %(limit)s. Returns a row
-- for each. Their attempts and outputs are removed with them. A unique lock has no foreign key and stays
-- until it expires. Jobs of a run or a batch stay: they are removed with it.
-- SKIP LOCKED: an operator retries that job right now. The removal is counted, for the integrity check.
-- Rows: both.
-- Run by the retain loop and by `flask opsjobs retain`. Index: jobs_alone_to_retain.
WITH old AS MATERIALIZED (
    SELECT id FROM opsjobs.jobs
    WHERE state = %(state)s AND ended_at < %(before)s AND workflow_id IS NULL AND batch_id IS NULL
    ORDER BY ended_at LIMIT %(limit)s FOR UPDATE SKIP LOCKED
), gone AS (
    DELETE FROM opsjobs.jobs j USING old WHERE j.id = old.id RETURNING j.queue, j.origin
), counted AS (
    INSERT INTO opsjobs.job_count_deltas (at, queue, deleted)
    SELECT clock_timestamp(), queue, count(*) FROM gone WHERE origin = 'opsjobs' GROUP BY queue
)
SELECT FROM gone
