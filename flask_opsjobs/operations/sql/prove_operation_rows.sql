-- Notes of rows that wait for it how the next attempt of their job ended: the first one after they were
-- frozen that was neither snoozed nor given back. A job that ended or was deleted without such an attempt
-- proves nothing. At most 1,000 rows. Returns how many rows got each result. The caller has locked the
-- operation.
-- Rows: both.
-- Run by the loop operate. Indexes: operation_rows_done, jobs_pkey, attempts_pkey.
WITH ended AS MATERIALIZED (
    SELECT r.number, CASE
        WHEN a.outcome = 'returned' THEN 'proven'
        WHEN a.outcome IS NULL OR a.outcome = 'canceled' THEN 'unproven'
        WHEN a.failure_key = r.failure_key THEN 'failed_same_error'
        ELSE 'failed_other_error' END AS result
    FROM opsjobs.operation_rows r
    LEFT JOIN opsjobs.jobs j ON j.id = coalesce(r.new_job_id, r.job_id)
    LEFT JOIN LATERAL (
        SELECT outcome, failure_key FROM opsjobs.attempts
        WHERE job_id = coalesce(r.new_job_id, r.job_id)
          AND dispatch_no > CASE WHEN r.new_job_id IS NULL THEN r.dispatch_no ELSE 0 END
          AND outcome IS NOT NULL AND outcome NOT IN ('snoozed', 'not_run')
        ORDER BY dispatch_no LIMIT 1) AS a ON true
    WHERE r.operation_id = %(id)s AND r.result = 'done'
      AND (a.outcome IS NOT NULL OR j.id IS NULL
        OR (j.ended_at IS NOT NULL AND (j.origin = 'opsjobs' OR j.ended_at > r.at)))
    ORDER BY r.number LIMIT 1000
), noted AS (
    UPDATE opsjobs.operation_rows r SET result = e.result, proven_at = %(now)s
    FROM ended e WHERE r.operation_id = %(id)s AND r.number = e.number
        -- Otherwise the planner may read all rows of the operation.
        AND r.number BETWEEN (SELECT min(number) FROM ended) AND (SELECT max(number) FROM ended)
    RETURNING r.result
)
SELECT result, count(*) FROM noted GROUP BY result
