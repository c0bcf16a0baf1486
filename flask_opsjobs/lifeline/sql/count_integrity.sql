-- Counts the enqueued, deleted and stored jobs of every queue in one snapshot, and writes them into the
-- integrity check. A reserved job counts as started: a worker holds it. A transaction that inserts or
-- deletes jobs also appends a counter row, so the numbers agree in any snapshot. Reads one index entry for
-- each job, and the row of each live job: about 0.7 s for a million. The caller limits how often. Locks
-- nothing.
-- Rows: opsjobs, by origin.
-- Run by the check_integrity loop. Indexes: jobs_by_queue, jobs_by_state, jobs_adopted.
-- Adopted jobs are counted apart, and taken off: a condition would need the row of each job.
WITH rows AS MATERIALIZED (
    SELECT queue, count(*) AS number FROM opsjobs.jobs GROUP BY queue
), adopted AS MATERIALIZED (
    SELECT queue, count(*) AS number FROM opsjobs.jobs WHERE origin = 'rq' GROUP BY queue
), stored AS MATERIALIZED (
    SELECT queue, r.number - coalesce(a.number, 0) AS number
    FROM rows r LEFT JOIN adopted a USING (queue) WHERE r.number > coalesce(a.number, 0)
), live AS MATERIALIZED (
    SELECT queue, count(*) FILTER (WHERE state NOT IN ('queued', 'started')) AS waiting,
        count(*) FILTER (WHERE state = 'queued' AND reserved_by IS NULL) AS queued,
        count(*) FILTER (WHERE state = 'started' OR reserved_by IS NOT NULL) AS started
    FROM opsjobs.jobs WHERE state = ANY (%(live)s::text[]) AND origin = 'opsjobs' GROUP BY queue
), counts AS MATERIALIZED (
    SELECT queue, sum(enqueued) AS enqueued, sum(deleted) AS deleted FROM (
        SELECT queue, enqueued, deleted FROM opsjobs.enqueue_counts
        UNION ALL
        SELECT queue, enqueued, deleted FROM opsjobs.job_count_deltas
    ) AS each GROUP BY queue
)
INSERT INTO opsjobs.integrity_checks AS i (queue, counted_at, took_seconds, enqueued, deleted,
    stored, waiting, queued, started)
SELECT queue, %(now)s, extract(epoch FROM clock_timestamp() - statement_timestamp()), coalesce(enqueued, 0),
    coalesce(deleted, 0), coalesce(number, 0), coalesce(waiting, 0), coalesce(queued, 0), coalesce(started, 0)
FROM counts FULL JOIN stored USING (queue) LEFT JOIN live USING (queue)
ORDER BY queue
ON CONFLICT (queue) DO UPDATE SET counted_at = excluded.counted_at, took_seconds = excluded.took_seconds,
    enqueued = excluded.enqueued, deleted = excluded.deleted, stored = excluded.stored,
    waiting = excluded.waiting, queued = excluded.queued, started = excluded.started
