-- Lists how many jobs of each queue were in each state at the last integrity check, and with a NULL state its
-- difference. The queues %(named)s and the next %(more)s by name have rows of their own, all others have them
-- together, with the queue ''. Locks nothing.
-- Run by telemetry/queries.py. Index: integrity_checks_pkey.
WITH chosen AS MATERIALIZED (
    SELECT unnest(%(named)s::text[]) AS queue
    UNION ALL
    (SELECT queue FROM opsjobs.integrity_checks WHERE queue <> ALL (%(named)s::text[])
     ORDER BY queue LIMIT %(more)s)
)
SELECT coalesce(chosen.queue, '') AS queue, each.state, sum(each.number)::bigint AS number
FROM (
    SELECT check_.queue, of_state.key AS state, of_state.value::bigint AS number
    FROM opsjobs.integrity_checks AS check_, jsonb_each(check_.states) AS of_state
    UNION ALL
    SELECT queue, NULL, enqueued - deleted - stored FROM opsjobs.integrity_checks
) AS each LEFT JOIN chosen USING (queue)
GROUP BY 1, 2
