-- Sums up minutes or hours of tasks: one row for each task of `counts`, a table of the statement around it.
-- Part of the statements that read the numbers of tasks, and of retention. Locks nothing.
SELECT n.*, h.waits, h.runs
FROM (
    SELECT task, sum(enqueued)::bigint AS enqueued, sum(finished)::bigint AS finished,
        sum(failed)::bigint AS failed, sum(canceled)::bigint AS canceled, sum(wait_seconds) AS wait_seconds,
        sum(run_seconds) AS run_seconds, max(longest_wait) AS longest_wait, max(longest_run) AS longest_run,
        max(peak_kb) AS peak_kb
    FROM counts GROUP BY task
) AS n
LEFT JOIN (
    SELECT task, array_agg(waits ORDER BY bucket) AS waits, array_agg(runs ORDER BY bucket) AS runs
    FROM (
        SELECT c.task, u.bucket, coalesce(sum(u.wait), 0)::bigint AS waits,
            coalesce(sum(u.run), 0)::bigint AS runs
        FROM counts c, unnest(c.waits, c.runs) WITH ORDINALITY AS u(wait, run, bucket)
        GROUP BY c.task, u.bucket
    ) AS buckets
    GROUP BY task
) AS h USING (task)
