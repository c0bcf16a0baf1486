-- Locks jobs in id order, as everybody does, so that an operator and a worker's flush cannot deadlock. Returns nothing of
-- use: whoever locks here looks in the next statement, which sees what was committed while this one waited.
-- Run by actions, in the transaction of an execution. Index: jobs_pkey.
SELECT FROM opsjobs.jobs WHERE id = ANY (%(ids)s::bigint[]) ORDER BY id FOR UPDATE
