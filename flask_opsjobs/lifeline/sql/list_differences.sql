-- Lists the queues with differences: queue, when it was counted, how many more jobs were enqueued than
-- deleted and stored, and what the comparison with Redis and the heartbeats found. A comparison counts for
-- half a minute: when Redis does not answer, nobody compares. Without %(is_rescued)s, what nobody holds waits
-- for an operator, and its worker is an incident already.
-- Queues after %(after)s, by name.
-- Run by the loop check_integrity. Index: integrity_checks_pkey.
SELECT queue, counted_at, missing, nowhere, unreserved, orphans FROM (
    SELECT queue, counted_at, enqueued - deleted - stored AS missing,
        CASE WHEN is_fresh THEN queued_nowhere ELSE 0 END AS nowhere,
        CASE WHEN is_fresh AND %(is_rescued)s::boolean THEN started_unreserved ELSE 0 END AS unreserved,
        CASE WHEN is_fresh THEN orphan_deliveries ELSE 0 END AS orphans
    FROM (
        SELECT *, coalesce(compared_at > %(now)s::timestamptz - interval '30 s', false) AS is_fresh
        FROM opsjobs.integrity_checks WHERE queue > %(after)s
    ) AS each
) AS found
WHERE missing <> 0 OR nowhere > 0 OR unreserved > 0 OR orphans > 0 ORDER BY queue LIMIT %(limit)s
