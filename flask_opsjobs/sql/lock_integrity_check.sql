-- Whether no other process counts for the integrity check; none will until the end of this transaction.
-- Run by the check_integrity loop before it counts.
SELECT pg_try_advisory_xact_lock(hashtextextended('opsjobs integrity check', 0))
