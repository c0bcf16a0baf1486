-- Adds the minutes before %(before)s to the one row of their queue for the minute 1970-01-01 00:00, and
-- removes them, at most %(limit)s. So the sums stay exact for ever, and the table stays small. Only this loop
-- writes enqueue_counts.
-- Run by the roll_up loop. Index: enqueue_counts_pkey.
WITH old AS MATERIALIZED (
    SELECT minute, queue FROM opsjobs.enqueue_counts
    WHERE minute > 'epoch' AND minute < %(before)s
    ORDER BY minute LIMIT %(limit)s
), gone AS (
    DELETE FROM opsjobs.enqueue_counts c USING old WHERE c.minute = old.minute AND c.queue = old.queue
    RETURNING c.queue, c.enqueued, c.deleted
)
INSERT INTO opsjobs.enqueue_counts AS c (minute, queue, enqueued, deleted)
SELECT 'epoch', queue, sum(enqueued), sum(deleted) FROM gone GROUP BY queue ORDER BY queue
ON CONFLICT (minute, queue) DO UPDATE SET
    enqueued = c.enqueued + excluded.enqueued,
    deleted = c.deleted + excluded.deleted
