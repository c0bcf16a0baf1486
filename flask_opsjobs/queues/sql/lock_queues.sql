-- Locks queues in the order of their names. Whoever locks here looks in the next statement.
-- Run by actions, in the transaction of an execution. Index: queues_pkey.
SELECT FROM opsjobs.queues WHERE name = ANY (%(names)s::text[]) ORDER BY name FOR UPDATE
