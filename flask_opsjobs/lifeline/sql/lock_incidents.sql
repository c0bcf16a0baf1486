-- Locks incidents in the order of their fingerprints, as detecting passes do: no pass decides about them
-- until the commit.
-- Run by actions, in the transaction of an execution. Index: incidents_pkey.
SELECT FROM opsjobs.incidents WHERE id = ANY (%(ids)s::bigint[]) ORDER BY fingerprint FOR UPDATE
