-- Takes the advisory lock of the integrity check until the end of the transaction. Returns false when another
-- process has it.
-- Run by the check_integrity loop before it counts.
SELECT pg_try_advisory_xact_lock(hashtextextended('opsjobs integrity check', 0))
