-- Removes operations that ended before %(before)s, and drafts that expired a day ago, at most %(limit)s:
-- those of which retain_operation_rows.sql has left no row. SKIP LOCKED: an operator decides
-- about one right now.
-- Run by the retain loop and by `flask opsjobs retain`. Indexes: operations_ended, operation_rows_pkey.
WITH old AS MATERIALIZED (
    SELECT o.id FROM opsjobs.operations o
    WHERE o.ended_at IS NOT NULL AND (
        (o.state IN ('finished', 'stopped', 'canceled') AND o.ended_at < %(before)s)
        OR (o.state = 'expired' AND o.ended_at < %(now)s::timestamptz - interval '1 day'))
      AND NOT EXISTS (SELECT FROM opsjobs.operation_rows r WHERE r.operation_id = o.id)
    LIMIT %(limit)s FOR UPDATE SKIP LOCKED
)
DELETE FROM opsjobs.operations o USING old WHERE o.id = old.id
