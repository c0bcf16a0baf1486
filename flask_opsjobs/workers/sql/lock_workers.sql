-- Locks workers by name, in id order, until the commit. The caller reads them with the next statement. A
-- worker's heartbeat waits meanwhile.
-- Run by actions, in the transaction of an execution. Index: workers_name_key.
SELECT FROM opsjobs.workers WHERE name = ANY (%(names)s::text[]) ORDER BY id FOR NO KEY UPDATE
