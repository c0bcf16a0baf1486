-- Removes members of the oldest batches of one final state that ended before %(before)s, at most %(limit)s,
-- and each batch that has no member left, with its counts and callbacks. Returns a row for each member.
-- A large batch goes in several calls. A member that is retried between them reopens the batch, whose counts
-- still hold those that were removed: then the rest stays.
-- SKIP LOCKED: somebody retries a member of that batch right now. Locks the batches, then members in id
-- order. The removal is counted, for the integrity check.
-- Rows: opsjobs, by their batches.
-- Run by the retain loop and by `flask opsjobs retain`. Indexes: batches_to_retain, jobs_of_batch,
-- jobs_open_of_batch, jobs_pkey, callbacks_pkey, batch_end_events_by_batch.
WITH old AS MATERIALIZED (
    SELECT id FROM opsjobs.batches b
    WHERE state = %(state)s AND ended_at < %(before)s AND NOT EXISTS (
        SELECT FROM opsjobs.jobs j WHERE j.batch_id = b.id AND j.ended_at IS NULL)
    ORDER BY ended_at LIMIT %(limit)s FOR UPDATE SKIP LOCKED
), chosen AS MATERIALIZED (
    SELECT j.id FROM old b CROSS JOIN LATERAL (
        SELECT id FROM opsjobs.jobs WHERE batch_id = b.id LIMIT %(limit)s) AS j
    LIMIT %(limit)s
), locked AS MATERIALIZED (
    SELECT j.id FROM opsjobs.jobs j WHERE j.id = ANY (ARRAY(SELECT id FROM chosen)) AND j.ended_at IS NOT NULL
    ORDER BY j.id FOR UPDATE OF j SKIP LOCKED
), gone AS (
    DELETE FROM opsjobs.jobs j USING locked l WHERE j.id = l.id RETURNING j.queue
), emptied AS MATERIALIZED (
    SELECT b.id FROM old b WHERE (
        SELECT j.id FROM opsjobs.jobs j
        WHERE j.batch_id = b.id AND j.id NOT IN (SELECT id FROM locked) LIMIT 1) IS NULL
), callbacks AS (
    DELETE FROM opsjobs.callbacks c USING emptied e WHERE c.of = 'batch' AND c.of_id = e.id
), events AS (
    DELETE FROM opsjobs.batch_end_events v USING emptied e WHERE v.batch_id = e.id
), batches AS (
    DELETE FROM opsjobs.batches b USING emptied e WHERE b.id = e.id
), counted AS (
    INSERT INTO opsjobs.job_count_deltas (at, queue, deleted)
    SELECT clock_timestamp(), queue, count(*) FROM gone GROUP BY queue
)
SELECT FROM gone
