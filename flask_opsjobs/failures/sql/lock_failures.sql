-- Locks failures in id order until the commit.
-- Run by actions, in the transaction of an execution. Index: failures_pkey.
SELECT FROM opsjobs.failures WHERE id = ANY (%(ids)s::bigint[]) ORDER BY id FOR UPDATE
