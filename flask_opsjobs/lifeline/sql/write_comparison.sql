-- Writes the differences between Postgres, Redis and the heartbeats for each queue in %(queues)s, and 0 for
-- every other queue of the integrity check when %(is_complete)s. Else a Redis did not answer, perhaps theirs.
-- Run by the check_integrity loop. Index: integrity_checks_pkey.
INSERT INTO opsjobs.integrity_checks AS i (queue, counted_at, took_seconds, enqueued, deleted,
    stored, waiting, queued, started,
    compared_at, queued_nowhere, started_unreserved, orphan_deliveries)
SELECT names.queue, %(now)s, 0, 0, 0, 0, 0, 0, 0, %(now)s,
    coalesce(nowhere, 0), coalesce(unreserved, 0), coalesce(orphan_deliveries, 0)
FROM (
    SELECT queue FROM opsjobs.integrity_checks WHERE %(is_complete)s
    UNION SELECT unnest(%(queues)s::text[])
) AS names
LEFT JOIN unnest(%(queues)s::text[], %(nowhere)s::bigint[],
        %(unreserved)s::bigint[], %(orphan_deliveries)s::bigint[])
    AS found (queue, nowhere, unreserved, orphan_deliveries) USING (queue)
ORDER BY names.queue
ON CONFLICT (queue) DO UPDATE SET compared_at = excluded.compared_at,
    queued_nowhere = excluded.queued_nowhere,
    started_unreserved = excluded.started_unreserved, orphan_deliveries = excluded.orphan_deliveries
