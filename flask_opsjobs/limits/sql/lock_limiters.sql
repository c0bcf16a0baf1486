-- Locks limiters in the order of their names. The lock also protects the cooldowns of their buckets, which
-- only actions write. A claim locks only the bucket, so it does not wait for this lock. The caller reads with
-- the next statement.
-- Run by actions, in the transaction of an execution. Index: limiters_pkey.
SELECT FROM opsjobs.limiters WHERE name = ANY (%(limiters)s::text[]) ORDER BY name FOR UPDATE
