-- Adds the oldest %(limit)s slips to the sums of their minutes and removes them. Returns how many that were.
-- A slip that is not committed yet is not seen, and is folded by a later pass, however late its commit comes.
-- Only this loop writes births, so it waits for nobody. Run by the roll_up loop. Index: births_pkey.
WITH oldest AS MATERIALIZED (
    SELECT ctid FROM opsjobs.birth_slips LIMIT %(limit)s FOR UPDATE
), gone AS (
    DELETE FROM opsjobs.birth_slips s USING oldest WHERE s.ctid = oldest.ctid RETURNING s.at, s.queue, s.born, s.pruned
), sums AS (
    INSERT INTO opsjobs.births AS b (minute, queue, born, pruned)
    SELECT greatest(date_trunc('minute', at), 'epoch'), queue, sum(born), sum(pruned) FROM gone GROUP BY 1, 2 ORDER BY 1, 2
    ON CONFLICT (minute, queue) DO UPDATE SET born = b.born + excluded.born, pruned = b.pruned + excluded.pruned
)
SELECT count(*) FROM gone
