-- Locks queues in the order of their names. The caller reads them with the next statement.
-- Run by actions, in the transaction of an execution. Index: queues_pkey.
SELECT FROM opsjobs.queues WHERE name = ANY (%(names)s::text[]) ORDER BY name FOR UPDATE
