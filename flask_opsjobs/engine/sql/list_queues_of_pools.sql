-- Lists the queues to which workers of ours listen: these take jobs from Postgres while Redis is away. Locks
-- nothing.
-- Run by the recall loop, for jobs whose delivery is in a Redis that does not answer. Index: workers_alive.
SELECT DISTINCT queue FROM {listeners.sql} AS e, unnest(e.queues) AS queue WHERE e.kind = 'pool'
