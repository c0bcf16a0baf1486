-- Reads how far the stage of an operation is proven: how many of its rows, above %(low)s up to %(high)s, wait
-- for it and failed as before; and how many of the last 200 rows that were proven since the operation was
-- begun failed as before. Locks nothing.
-- Run by the loop operate. Indexes: operation_rows_done, operation_rows_by_result, operation_rows_proven.
SELECT (
        SELECT count(*) FROM opsjobs.operation_rows
        WHERE operation_id = %(id)s AND result = 'done' AND number > %(low)s AND number <= %(high)s
    ) AS waiting,
    (
        SELECT count(*) FROM (
            SELECT result FROM opsjobs.operation_rows
            WHERE operation_id = %(id)s AND number > %(low)s AND number <= least(%(high)s, %(low)s + 100)
        ) AS few
        WHERE result = 'failed_same_error') AS same_in_stage,
    recent.number AS recent, recent.same AS same_in_recent
FROM (
    SELECT count(*) AS number, count(*) FILTER (WHERE result = 'failed_same_error') AS same
    FROM (
        SELECT result FROM opsjobs.operation_rows
        -- Without a range of times, and with one of numbers, the planner may read all rows of the operation
        -- until the table is analyzed.
        WHERE operation_id = %(id)s AND proven_at > '-infinity' AND number + 0 > %(begun_after)s
        ORDER BY proven_at DESC, number DESC LIMIT 200) AS last
) AS recent
