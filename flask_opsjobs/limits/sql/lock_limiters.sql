-- Locks limiters in the order of their names. It also guards the cooldowns of their buckets, which only actions
-- write; a claim locks the bucket alone, and does not wait here. Whoever locks looks in the next statement.
-- Run by actions, in the transaction of an execution. Index: limiters_pkey.
SELECT FROM opsjobs.limiters WHERE name = ANY (%(limiters)s::text[]) ORDER BY name FOR UPDATE
