-- Finds loops whose last %(passes)s passes or more have failed, unless another process ran the loop without
-- an error since then.
-- Run by the loop detect. Index: loop_runs_latest.
SELECT failing.loop, failing.process, failing.failed_in_a_row, failing.error
FROM {loop_names.sql} AS names, LATERAL (
    SELECT r.loop, r.process, r.last_at, r.every_seconds, r.took_seconds, r.failed_in_a_row, r.error
    FROM opsjobs.loop_runs AS r
    WHERE r.loop = names.loop AND r.last_at <= greatest(%(now)s, statement_timestamp())
        AND r.last_at >= %(now)s::timestamptz
            - (3 * (r.every_seconds + r.took_seconds) + %(grace_seconds)s) * interval '1 s'
    ORDER BY r.failed_in_a_row DESC, r.last_at DESC
    LIMIT 1
) AS failing
WHERE failing.failed_in_a_row >= %(passes)s
    AND NOT EXISTS (
        SELECT FROM opsjobs.loop_runs AS other
        WHERE other.loop = failing.loop AND other.process <> failing.process
            AND other.failed_in_a_row = 0
            AND other.last_at >= failing.last_at - (3 * other.every_seconds + %(grace_seconds)s)
                * interval '1 s')
ORDER BY failing.loop
LIMIT %(limit)s
