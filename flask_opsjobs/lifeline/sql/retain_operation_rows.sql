-- Removes rows of operations that ended before %(before)s, and of drafts that expired a day ago, at most
-- %(limit)s, of a hundred operations. No lock of the operation: one that has stopped for so long is not
-- resumed any more.
-- Run by the retain loop and by `flask opsjobs retain`. Indexes: operations_ended, operation_rows_pkey.
WITH ended AS MATERIALIZED (
    SELECT o.id FROM opsjobs.operations o
    WHERE o.ended_at IS NOT NULL AND (
        (o.state IN ('finished', 'stopped', 'canceled') AND o.ended_at < %(before)s)
        OR (o.state = 'expired' AND o.ended_at < %(now)s::timestamptz - interval '1 day'))
    LIMIT 100
), old AS MATERIALIZED (
    SELECT r.operation_id, r.number FROM ended CROSS JOIN LATERAL (
        SELECT operation_id, number FROM opsjobs.operation_rows
        WHERE operation_id = ended.id ORDER BY operation_id, number LIMIT %(limit)s) AS r
    LIMIT %(limit)s
)
DELETE FROM opsjobs.operation_rows r USING old
WHERE r.operation_id = old.operation_id AND r.number = old.number
