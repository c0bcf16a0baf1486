-- Adds the minutes before %(before)s to the one row of their queue that stands at 1970, and removes them, at most
-- %(limit)s: the sums stay exact for ever, and the table small. Only this loop writes births.
-- Run by the roll_up loop. Index: births_pkey.
WITH old AS MATERIALIZED (
    SELECT minute, queue FROM opsjobs.births WHERE minute > 'epoch' AND minute < %(before)s ORDER BY minute LIMIT %(limit)s
), gone AS (
    DELETE FROM opsjobs.births b USING old WHERE b.minute = old.minute AND b.queue = old.queue
    RETURNING b.queue, b.born, b.pruned
)
INSERT INTO opsjobs.births AS b (minute, queue, born, pruned)
SELECT 'epoch', queue, sum(born), sum(pruned) FROM gone GROUP BY queue ORDER BY queue
ON CONFLICT (minute, queue) DO UPDATE SET born = b.born + excluded.born, pruned = b.pruned + excluded.pruned
