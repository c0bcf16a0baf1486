-- Reads for some queues whether they are paused, how many live workers listen, the prefetch, as
-- dispatch_lane.sql computes it, and how many jobs of the operation are due or dispatched there. Locks
-- nothing.
-- Rows: both.
-- Run by the loop operate. Indexes: operation_rows_done, jobs_pkey, workers_alive.
WITH waiting AS MATERIALIZED (
    SELECT r.queue, count(*) AS number
    FROM opsjobs.operation_rows r JOIN opsjobs.jobs j ON j.id = coalesce(r.new_job_id, r.job_id)
    WHERE r.operation_id = %(id)s AND r.result = 'done' AND j.state IN ('available', 'queued')
    GROUP BY r.queue
), heard AS MATERIALIZED (SELECT e.queues, e.processes FROM {listeners.sql} AS e)
SELECT named.queue, coalesce(q.is_paused, false) AS is_paused,
    (SELECT count(*) FROM heard WHERE named.queue = ANY (heard.queues)) AS listeners,
    coalesce(q.prefetch, %(prefetch)s::int, greatest(2, (
        SELECT sum(2 * heard.processes) FROM heard WHERE named.queue = ANY (heard.queues)))) AS prefetch,
    coalesce(waiting.number, 0) AS waiting
FROM unnest(%(queues)s::text[]) AS named (queue)
LEFT JOIN opsjobs.queues q ON q.name = named.queue
LEFT JOIN waiting ON waiting.queue = named.queue
