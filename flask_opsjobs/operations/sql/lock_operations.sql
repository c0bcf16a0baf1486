-- Locks operations in id order, before everything else: the loop operate skips them until the commit. With
-- %(actor)s, whoever begins an operation for this actor waits too, so that the sum of them is bounded.
-- Returns nothing that is read: the caller reads the rows with the next statement.
-- Run by actions, in the transaction of an execution. Index: operations_pkey.
WITH alone AS MATERIALIZED (
    SELECT CASE WHEN %(actor)s::text IS NOT NULL
        THEN pg_advisory_xact_lock(hashtextextended('opsjobs operations of ' || %(actor)s, 0)) END
)
SELECT FROM opsjobs.operations WHERE id = ANY (%(ids)s::bigint[]) AND (SELECT count(*) FROM alone) >= 0
ORDER BY id FOR UPDATE
