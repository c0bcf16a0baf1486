-- Adds the oldest %(limit)s counter rows to the sums of their minutes and removes them. Returns of each
-- queue, task and minute how many jobs were enqueued, and how many counter rows said so. A counter row that
-- is not committed yet is invisible here, and a later pass folds it, however late its commit is. Only this
-- loop writes enqueue_counts, so it waits for no other transaction.
-- Run by the roll_up loop. Index: enqueue_counts_pkey.
WITH oldest AS MATERIALIZED (
    SELECT ctid FROM opsjobs.job_count_deltas LIMIT %(limit)s FOR UPDATE
), gone AS (
    DELETE FROM opsjobs.job_count_deltas d USING oldest WHERE d.ctid = oldest.ctid
    RETURNING d.at, d.queue, d.enqueued, d.deleted, d.task
), sums AS (
    INSERT INTO opsjobs.enqueue_counts AS c (minute, queue, enqueued, deleted)
    SELECT greatest(date_trunc('minute', at), 'epoch'), queue, sum(enqueued), sum(deleted)
    FROM gone GROUP BY 1, 2 ORDER BY 1, 2
    ON CONFLICT (minute, queue) DO UPDATE SET
        enqueued = c.enqueued + excluded.enqueued,
        deleted = c.deleted + excluded.deleted
)
SELECT queue, greatest(date_trunc('minute', at), 'epoch') AS minute, sum(enqueued)::bigint, count(*),
    task
FROM gone GROUP BY queue, minute, task
