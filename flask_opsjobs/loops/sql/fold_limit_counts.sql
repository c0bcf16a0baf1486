-- Adds the oldest %(limit)s counter rows of limiters to the sums of their minutes and removes them. Returns
-- how many they were. A counter row that is not committed yet is invisible here, and a later pass folds it.
-- Only this loop writes these minutes, so it waits for no other transaction.
-- Run by the roll_up loop. Index: limit_minutes_pkey.
WITH oldest AS MATERIALIZED (
    SELECT ctid FROM opsjobs.limit_count_deltas LIMIT %(limit)s FOR UPDATE
), gone AS (
    DELETE FROM opsjobs.limit_count_deltas d USING oldest WHERE d.ctid = oldest.ctid
    RETURNING d.at, d.limiter, d.admitted, d.recalled, d.rejected
), sums AS (
    INSERT INTO opsjobs.limit_minutes AS m (limiter, minute, admitted, recalled, rejected)
    SELECT limiter, date_trunc('minute', at), sum(admitted), sum(recalled), sum(rejected) FROM gone
    GROUP BY 1, 2 ORDER BY 1, 2
    ON CONFLICT (limiter, minute) DO UPDATE SET admitted = m.admitted + excluded.admitted,
        recalled = m.recalled + excluded.recalled, rejected = m.rejected + excluded.rejected
)
SELECT count(*) FROM gone
