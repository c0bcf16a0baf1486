-- Lets one dispatcher at a time look at a bucket and take from it: two that looked at the same room would both fill it.
-- Of the transaction, so that it passes PgBouncer. A claim does not wait for it.
-- Run by dispatch, before it looks at a limited lane.
SELECT pg_advisory_xact_lock(hashtextextended('opsjobs bucket ' || %(limiter)s || '|' || %(partition)s, 0))
