-- Lets no other operator pause or resume a task until the commit. An advisory lock, because a task that is
-- not paused has no row. It belongs to the transaction, so it works through PgBouncer.
-- Run by actions, in the transaction of an execution.
SELECT pg_advisory_xact_lock(hashtextextended('opsjobs task pauses', 0))
