-- Locks runs in id order, before their jobs: nobody advances them until the commit. Waits for one who does.
-- Run by actions, in the transaction of an execution. Index: workflows_pkey.
SELECT id FROM opsjobs.workflows WHERE id = ANY (%(ids)s::bigint[]) ORDER BY id FOR NO KEY UPDATE
