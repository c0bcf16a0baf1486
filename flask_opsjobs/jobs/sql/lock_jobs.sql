-- Locks jobs in id order. All statements lock in this order, so that an operator and a worker's flush cannot
-- deadlock. Returns empty rows: the caller reads the jobs with the next statement, which sees commits made
-- while this one waited.
-- Run by actions, in the transaction of an execution. Index: jobs_pkey.
SELECT FROM opsjobs.jobs WHERE id = ANY (%(ids)s::bigint[]) ORDER BY id FOR UPDATE
