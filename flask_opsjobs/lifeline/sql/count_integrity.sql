-- Counts the enqueued, deleted and stored jobs of every queue in one snapshot, and those in each state, and
-- writes them into the integrity check. A reserved job counts as started: a worker holds it. A transaction
-- that inserts or deletes jobs also appends a counter row, so the numbers agree in any snapshot. Reads one
-- index entry for each job, another one for each failed or canceled job, and the row of each live job: about
-- 0.7 s for a million. The caller limits how often. Locks nothing.
-- Rows: opsjobs, by origin.
-- Run by the check_integrity loop. Indexes: jobs_by_queue, jobs_by_state, jobs_adopted,
-- jobs_unsuccessful_by_queue.
-- Adopted jobs are counted apart, and taken off: a condition would need the row of each job. What has no
-- other state has finished.
WITH rows AS MATERIALIZED (
    SELECT queue, count(*) AS number FROM opsjobs.jobs GROUP BY queue
), adopted_by_state AS MATERIALIZED (
    SELECT queue, state, count(*) AS number FROM opsjobs.jobs WHERE origin = 'rq' GROUP BY queue, state
), adopted AS MATERIALIZED (
    SELECT queue, sum(number) AS number FROM adopted_by_state GROUP BY queue
), stored AS MATERIALIZED (
    SELECT queue, r.number - coalesce(a.number, 0) AS number
    FROM rows r LEFT JOIN adopted a USING (queue) WHERE r.number > coalesce(a.number, 0)
), live_by_state AS MATERIALIZED (
    SELECT queue, state, count(*) AS number, count(reserved_by) AS reserved
    FROM opsjobs.jobs WHERE state = ANY (%(live)s::text[]) AND origin = 'opsjobs' GROUP BY queue, state
), live AS MATERIALIZED (
    SELECT queue, sum(number) FILTER (WHERE state NOT IN ('queued', 'started')) AS waiting,
        sum(number - reserved) FILTER (WHERE state = 'queued') AS queued,
        sum(CASE state WHEN 'started' THEN number ELSE reserved END) AS started
    FROM live_by_state GROUP BY queue
), others AS MATERIALIZED (
    SELECT queue, state, sum(number) AS number FROM (
        SELECT queue, state, number FROM live_by_state
        UNION ALL
        SELECT queue, state, number FROM adopted_by_state
        WHERE state NOT IN ('finished', 'failed', 'canceled')
        UNION ALL
        SELECT queue, state, count(*) FROM opsjobs.jobs WHERE state IN ('failed', 'canceled')
        GROUP BY queue, state
    ) AS each GROUP BY queue, state
), by_state AS MATERIALIZED (
    SELECT queue, jsonb_object_agg(state, number) AS states FROM (
        SELECT queue, state, number FROM others
        UNION ALL
        SELECT queue, 'finished', r.number - coalesce(o.number, 0) FROM rows r
        LEFT JOIN (SELECT queue, sum(number) AS number FROM others GROUP BY queue) AS o USING (queue)
        WHERE r.number > coalesce(o.number, 0)
    ) AS each GROUP BY queue
), counts AS MATERIALIZED (
    SELECT queue, sum(enqueued) AS enqueued, sum(deleted) AS deleted FROM (
        SELECT queue, enqueued, deleted FROM opsjobs.enqueue_counts
        UNION ALL
        SELECT queue, enqueued, deleted FROM opsjobs.job_count_deltas
    ) AS each GROUP BY queue
)
INSERT INTO opsjobs.integrity_checks AS i (queue, counted_at, took_seconds, enqueued, deleted,
    stored, waiting, queued, started, states)
SELECT queue, %(now)s, extract(epoch FROM clock_timestamp() - statement_timestamp()),
    coalesce(counts.enqueued, 0), coalesce(counts.deleted, 0), coalesce(stored.number, 0),
    coalesce(live.waiting, 0), coalesce(live.queued, 0), coalesce(live.started, 0),
    coalesce(by_state.states, '{}')
FROM counts FULL JOIN stored USING (queue) FULL JOIN by_state USING (queue)
    FULL JOIN (SELECT queue FROM opsjobs.integrity_checks) AS known USING (queue) LEFT JOIN live USING (queue)
ORDER BY queue
ON CONFLICT (queue) DO UPDATE SET counted_at = excluded.counted_at, took_seconds = excluded.took_seconds,
    enqueued = excluded.enqueued, deleted = excluded.deleted, stored = excluded.stored,
    waiting = excluded.waiting, queued = excluded.queued, started = excluded.started, states = excluded.states
