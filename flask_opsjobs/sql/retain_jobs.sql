-- Removes the oldest jobs of one final state that ended before %(before)s, at most %(limit)s. Their attempts and
-- outputs go with them; a receipt has no foreign key and stays as long as it guards.
-- SKIP LOCKED: somebody retries that job right now.
-- Run by the retain loop and by `flask opsjobs retain`. Index: jobs_to_retain.
WITH old AS MATERIALIZED (
    SELECT id FROM opsjobs.jobs
    WHERE state = %(state)s AND ended_at < %(before)s
    ORDER BY ended_at LIMIT %(limit)s FOR UPDATE SKIP LOCKED
)
DELETE FROM opsjobs.jobs j USING old WHERE j.id = old.id
