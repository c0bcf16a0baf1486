-- Whether nobody else counts the books now; until the end of the transaction nobody else will.
-- Run by the keep_books loop before it counts.
SELECT pg_try_advisory_xact_lock(hashtextextended('opsjobs books', 0))
